// Arithmetic whose result has the same bits on every processor: what can be undone later must not depend on where it
// was done.
#pragma once

#include <ATen/core/Tensor.h>

namespace echelon {

/// left [n, r] times right [r, m] in float64, each element summed in the order of r. Of float32 factors the products
/// are exact, so that fused and unfused multiplication agree. Result [n, m].
at::Tensor ordered_product(const at::Tensor& left, const at::Tensor& right);

/// The Euclidean lengths of the rows of `matrix` [n, m] in float64, each summed in the order of m. Result [n, 1].
at::Tensor ordered_row_lengths(const at::Tensor& matrix);
/// The same of a matrix of which `squares` [n, m], float64, has the squares.
at::Tensor ordered_row_lengths_of_squares(const at::Tensor& squares);

}  // namespace echelon
