// Softmax cross-entropy over rows of logits, in steps between which ranks that share a vocabulary can agree.
#pragma once

#include <cstdint>

#include "models/kernels/kernel.h"
#include "models/kernels/kernel_math.h"

namespace echelon {

/// The largest logit of each row [rows, columns]; -1e30 where there are no columns.
ECHELON_KERNEL(row_max, (const float* logits, int64_t rows, int64_t columns, float* largest),
               (logits, rows, columns, largest))
ECHELON_KERNEL(row_max, (const Bfloat16* logits, int64_t rows, int64_t columns, float* largest),
               (logits, rows, columns, largest))

/// sums: of exp(logit - largest) in each row; of_target: the target's logit - largest. `targets` count from these
/// columns' first; a target outside of [0, columns) stands on another rank and gives 0.
ECHELON_KERNEL(row_sum,
               (const float* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                float* sums, float* of_target),
               (logits, rows, columns, targets, largest, sums, of_target))
ECHELON_KERNEL(row_sum,
               (const Bfloat16* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                float* sums, float* of_target),
               (logits, rows, columns, targets, largest, sums, of_target))

/// Overwrites logits by the gradient of their row's cross-entropy: softmax, less 1 at the target.
ECHELON_KERNEL(row_gradient,
               (float* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                const float* sums),
               (logits, rows, columns, targets, largest, sums))
ECHELON_KERNEL(row_gradient,
               (Bfloat16 * logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                const float* sums),
               (logits, rows, columns, targets, largest, sums))

}  // namespace echelon
