#include "models/kernels/rotary_kernel.h"

namespace echelon::kernels::ECHELON_ISA_NAME {
namespace {

template <class T>
void turn_row(const RotaryShape& s, const float* cosine, const float* sine, const T* __restrict x, T* __restrict y) {
  int64_t half = s.width / 2;
  for (int64_t i = 0; i < half; ++i) {
    float first = widen(x[i]), second = widen(x[i + half]), turn = s.direction * sine[i];
    narrow(first * cosine[i] - second * turn, y[i]);
    narrow(second * cosine[i] + first * turn, y[i + half]);
  }
}

template <class T>
void turn(const RotaryShape& s, const HeadRows<const T>& x, const HeadRows<T>& y, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    int64_t batch = row / s.tokens, token = row % s.tokens, angle = token * (s.width / 2);
    const T* from = x.data + batch * x.batch + token * x.token;
    T* to = y.data + batch * y.batch + token * y.token;
    for (int64_t head = 0; head < s.heads; ++head) {
      turn_row(s, s.cosine + angle, s.sine + angle, from + head * x.head, to + head * y.head);
    }
  }
}

}  // namespace

void rotary(const RotaryShape& shape, const HeadRows<const float>& x, const HeadRows<float>& y, int64_t begin,
            int64_t end) {
  turn(shape, x, y, begin, end);
}
void rotary(const RotaryShape& shape, const HeadRows<const Bfloat16>& x, const HeadRows<Bfloat16>& y, int64_t begin,
            int64_t end) {
  turn(shape, x, y, begin, end);
}

}  // namespace echelon::kernels::ECHELON_ISA_NAME
