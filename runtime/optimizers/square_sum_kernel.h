// Sums of squares.
#pragma once

#include <cstdint>

#include "models/kernels/kernel.h"

namespace echelon {

/// The sum of squares of x [count], in float64.
ECHELON_KERNEL(square_sum, (const float* x, int64_t count, double* sum), (x, count, sum))
ECHELON_KERNEL(square_sum, (const double* x, int64_t count, double* sum), (x, count, sum))

/// On a GPU: sums [kSquareSums] of parts of x, always the same parts.
constexpr int64_t kSquareSums = 512;
ECHELON_GPU_KERNEL(square_sums, (const float* x, int64_t count, double* sums), (x, count, sums))
ECHELON_GPU_KERNEL(square_sums, (const double* x, int64_t count, double* sums), (x, count, sums))

}  // namespace echelon
