// Sums of squares.
#pragma once

#include <cstdint>

#include "models/kernels/kernel.h"

namespace echelon {

/// The sum of squares of x [count], in float64.
ECHELON_KERNEL(square_sum, (const float* x, int64_t count, double* sum), (x, count, sum))
ECHELON_KERNEL(square_sum, (const double* x, int64_t count, double* sum), (x, count, sum))

}  // namespace echelon
