// Products of a few rows with a matrix: what is slow about them is reading the matrix.
#pragma once

#include <cstdint>

#include "models/kernels/kernel.h"
#include "models/kernels/kernel_math.h"

namespace echelon {

/// y = x Wᵀ + b. Rows of W lie one behind the other.
template <class T>
struct FewRows {
  int64_t rows, depth;
  const T* x;  ///< [rows, depth], rows `x_row` elements apart
  int64_t x_row;
  const T* weight;  ///< [outputs, depth]
  const T* bias;    ///< [outputs], or null
  T* y;             ///< [rows, outputs], rows `y_row` elements apart
  int64_t y_row;
};

/// Outputs [begin, end) of all rows; sums in float32, one rounding at the end. What an output is does not depend on
/// the others.
ECHELON_KERNEL(few_rows_product, (const FewRows<float>& product, int64_t begin, int64_t end), (product, begin, end))
ECHELON_KERNEL(few_rows_product, (const FewRows<Bfloat16>& product, int64_t begin, int64_t end), (product, begin, end))

}  // namespace echelon
