// Rotary positions.
#pragma once

#include <cstdint>

#include "models/kernels/head_rows.h"
#include "models/kernels/kernel.h"
#include "models/kernels/kernel_math.h"

namespace echelon {

struct RotaryShape {
  int64_t heads, tokens, width;
  float direction = 1;         ///< -1 turns back
  const float *cosine, *sine;  ///< [tokens, width / 2]
};

/// Turns pairs (i, i + width / 2) of the rows of tokens [begin, end) of [batch, tokens] by the angles of their
/// positions; one rounding at the end. Source: Su et al. 2021, half-split form.
ECHELON_KERNEL(rotary,
               (const RotaryShape& shape, const HeadRows<const float>& x, const HeadRows<float>& y, int64_t begin,
                int64_t end),
               (shape, x, y, begin, end))
ECHELON_KERNEL(rotary,
               (const RotaryShape& shape, const HeadRows<const Bfloat16>& x, const HeadRows<Bfloat16>& y, int64_t begin,
                int64_t end),
               (shape, x, y, begin, end))

}  // namespace echelon
