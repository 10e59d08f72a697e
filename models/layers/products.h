// The three matrix products of a linear layer, each by the library that is faster at it on this processor.
#pragma once

#include <ATen/core/Tensor.h>

namespace echelon {

/// x [N, in] · Wᵀ + bias, of weight [out, in]; `bias` may be undefined. Result [N, out].
at::Tensor product_transposed(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

/// x [N, out] · W, of weight [out, in]. Result [N, in].
at::Tensor product(const at::Tensor& x, const at::Tensor& weight);

/// gradientᵀ [out, N] · x [N, in], added to `sum` [out, in], or in place of what it holds where `fresh`. The sum may be
/// in a wider dtype.
void add_outer_product(at::Tensor& sum, bool fresh, const at::Tensor& gradient, const at::Tensor& x);

}  // namespace echelon
