// Rotary positions of queries and keys.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "models/architecture.h"

namespace echelon {

/// Rotates pairs (i, i + d/2) of x [B, H, T, d] by position · theta^(-2i/d). float32 and bfloat16 on the processor take
/// any strides of rows; the result is a view of rows [B, T, H, d], and so is the gradient. Source: Su et al. 2021,
/// half-split form.
at::Tensor rotate(const at::Tensor& x, int64_t first_position, const Architecture& architecture);

}  // namespace echelon
