// Activation functions as operators with gradients.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/activation.h"

namespace echelon {

/// activation(x), elementwise; any shape. Its backward keeps x only.
at::Tensor activate(const at::Tensor& x, Activation activation);

/// activation(gate) * up, of one shape, rounded once. Its backward keeps the two only.
at::Tensor activate_gated(const at::Tensor& gate, const at::Tensor& up, Activation activation);

}  // namespace echelon
