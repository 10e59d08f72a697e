#include "models/kernels/activation_kernel.h"

#include "models/kernels/activation_functions.h"

namespace echelon::kernels::ECHELON_ISA_NAME {

namespace {

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
