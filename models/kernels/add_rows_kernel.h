// The gradient of a lookup.
#pragma once

#include <cstdint>

#include "models/kernels/kernel.h"
#include "models/kernels/kernel_math.h"

namespace echelon {

/// Adds rows [count, width] to rows `ids` [count] of a table [.., width], in their order, columns [begin, end) only:
/// threads that share the columns among them give the same bits whatever their number. Rows whose `mute` is set are
/// left out; null: none.
ECHELON_KERNEL(add_rows,
               (float* table, const float* rows, const int64_t* ids, const bool* mute, int64_t count, int64_t width,
                int64_t begin, int64_t end),
               (table, rows, ids, mute, count, width, begin, end))
ECHELON_KERNEL(add_rows,
               (float* table, const Bfloat16* rows, const int64_t* ids, const bool* mute, int64_t count, int64_t width,
                int64_t begin, int64_t end),
               (table, rows, ids, mute, count, width, begin, end))

}  // namespace echelon
