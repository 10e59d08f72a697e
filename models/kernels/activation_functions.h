// Activation functions and their derivatives, for sources of kernels.
#pragma once

#include "models/kernels/kernel_math.h"

namespace echelon::kernels::ECHELON_ISA_NAME {

/// An activation's value and derivative.
struct Point {
  float value, slope;
};

struct Gelu {
  ECHELON_INLINE Point at(float x) {
    float below = 0.5f + 0.5f * error_function(x * 0.70710678118654752f);
    return {x * below, below + x * 0.39894228040143268f * exponential(-0.5f * x * x)};
  }
};

/// 0.5 x (1 + tanh(u)) = x logistic(2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
struct GeluTanh {
  ECHELON_INLINE Point at(float x) {
    constexpr float kLinear = 1.5957691216057308f, kCubic = 0.044715f * kLinear;
    float square = x * x;
    float s = logistic(x * (kLinear + kCubic * square));
    return {x * s, s + x * s * (1.0f - s) * (kLinear + 3.0f * kCubic * square)};
  }
};

struct Silu {
  ECHELON_INLINE Point at(float x) {
    float s = logistic(x);
    return {x * s, s + x * s * (1.0f - s)};
  }
};

struct Relu {
  ECHELON_INLINE Point at(float x) { return {x > 0 ? x : 0.0f * x, x > 0 ? 1.0f : 0.0f}; }
};

}  // namespace echelon::kernels::ECHELON_ISA_NAME
