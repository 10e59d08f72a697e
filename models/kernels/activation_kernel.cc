#include "models/kernels/activation_kernel.h"

namespace echelon::kernels::ECHELON_ISA_NAME {

namespace {

/// An activation's value and derivative.
struct Point {
  float value, slope;
};

struct Gelu {
  static inline Point at(float x) {
    float below = 0.5f + 0.5f * error_function(x * 0.70710678118654752f);
    return {x * below, below + x * 0.39894228040143268f * exponential(-0.5f * x * x)};
  }
};

/// 0.5 x (1 + tanh(u)) = x logistic(2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
struct GeluTanh {
  static inline Point at(float x) {
    constexpr float kLinear = 1.5957691216057308f, kCubic = 0.044715f * kLinear;
    float square = x * x;
    float s = logistic(x * (kLinear + kCubic * square));
    return {x * s, s + x * s * (1.0f - s) * (kLinear + 3.0f * kCubic * square)};
  }
};

struct Silu {
  static inline Point at(float x) {
    float s = logistic(x);
    return {x * s, s + x * s * (1.0f - s)};
  }
};

struct Relu {
  static inline Point at(float x) { return {x > 0 ? x : 0.0f * x, x > 0 ? 1.0f : 0.0f}; }
};

template <class Function, class T>
void forward(const T* __restrict x, const T* __restrict up, T* __restrict y, int64_t count) {
  if (up) {
    for (int64_t i = 0; i < count; ++i) narrow(Function::at(widen(x[i])).value * widen(up[i]), y[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) narrow(Function::at(widen(x[i])).value, y[i]);
  }
}

template <class Function, class T>
void backward(const T* __restrict x, const T* __restrict up, const T* __restrict dy, T* __restrict dx,
              T* __restrict dup, int64_t count) {
  if (!up) {
    for (int64_t i = 0; i < count; ++i) narrow(widen(dy[i]) * Function::at(widen(x[i])).slope, dx[i]);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    Point point = Function::at(widen(x[i]));
    narrow(widen(dy[i]) * widen(up[i]) * point.slope, dx[i]);
    narrow(widen(dy[i]) * point.value, dup[i]);
  }
}

template <class T>
void choose_forward(Activation activation, const T* x, const T* up, T* y, int64_t count) {
  switch (activation) {
    case Activation::gelu:
      return forward<Gelu>(x, up, y, count);
    case Activation::gelu_tanh:
      return forward<GeluTanh>(x, up, y, count);
    case Activation::silu:
      return forward<Silu>(x, up, y, count);
    case Activation::relu:
      return forward<Relu>(x, up, y, count);
  }
}

template <class T>
void choose_backward(Activation activation, const T* x, const T* up, const T* dy, T* dx, T* dup, int64_t count) {
  switch (activation) {
    case Activation::gelu:
      return backward<Gelu>(x, up, dy, dx, dup, count);
    case Activation::gelu_tanh:
      return backward<GeluTanh>(x, up, dy, dx, dup, count);
    case Activation::silu:
      return backward<Silu>(x, up, dy, dx, dup, count);
    case Activation::relu:
      return backward<Relu>(x, up, dy, dx, dup, count);
  }
}

}  // namespace

void activation_forward(Activation activation, const float* x, const float* up, float* y, int64_t count) {
  choose_forward(activation, x, up, y, count);
}

void activation_forward(Activation activation, const Bfloat16* x, const Bfloat16* up, Bfloat16* y, int64_t count) {
  choose_forward(activation, x, up, y, count);
}

void activation_backward(Activation activation, const float* x, const float* up, const float* dy, float* dx, float* dup,
                         int64_t count) {
  choose_backward(activation, x, up, dy, dx, dup, count);
}

void activation_backward(Activation activation, const Bfloat16* x, const Bfloat16* up, const Bfloat16* dy, Bfloat16* dx,
                         Bfloat16* dup, int64_t count) {
  choose_backward(activation, x, up, dy, dx, dup, count);
}

}  // namespace echelon::kernels::ECHELON_ISA_NAME
