// Which library computes a matrix product.
#pragma once

#include <cstdint>
#include <string>

#include <c10/core/ScalarType.h>

namespace echelon {

/// Of a linear layer: x Wᵀ, gradient · W, gradientᵀ · x.
enum class ProductRole { forward, input_gradient, weight_gradient };

/// `stock` is whatever the framework's own operator calls (MKL on x86-64).
enum class ProductLibrary { stock, onednn };

/// By a table of measurements, keyed by processor, dtype, role and size: the two differ in their last bits, so that
/// what is fastest at the moment must not decide. `flops`: of the product.
ProductLibrary product_library(ProductRole role, at::ScalarType dtype, int64_t flops);

/// What the table says for this processor in words, for the log.
std::string products_in_words();

}  // namespace echelon
