// Activation functions, gated or not, and their gradients.
#pragma once

#include <cstdint>

#include "models/activation.h"
#include "models/kernels/kernel.h"
#include "models/kernels/kernel_math.h"

namespace echelon {

/// y = activation(x), or activation(x) * up where `up` is not null; one rounding at the end.
/// Sources: Hendrycks and Gimpel 2016 (GELU), Shazeer 2020 (gated).
ECHELON_KERNEL(activation_forward, (Activation activation, const float* x, const float* up, float* y, int64_t count),
               (activation, x, up, y, count))
ECHELON_KERNEL(activation_forward,
               (Activation activation, const Bfloat16* x, const Bfloat16* up, Bfloat16* y, int64_t count),
               (activation, x, up, y, count))

/// dx and, where `up` is not null, dup, of the gradient dy.
ECHELON_KERNEL(activation_backward,
               (Activation activation, const float* x, const float* up, const float* dy, float* dx, float* dup,
                int64_t count),
               (activation, x, up, dy, dx, dup, count))
ECHELON_KERNEL(activation_backward,
               (Activation activation, const Bfloat16* x, const Bfloat16* up, const Bfloat16* dy, Bfloat16* dx,
                Bfloat16* dup, int64_t count),
               (activation, x, up, dy, dx, dup, count))

}  // namespace echelon
