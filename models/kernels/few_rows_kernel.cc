#include "models/kernels/few_rows_kernel.h"

#include "models/kernels/vectors.h"

namespace echelon::kernels::ECHELON_ISA_NAME {
namespace {

// Sums of a tile stay in registers, beside the vectors of x.
#if defined(__AVX512F__)
constexpr int kRows = 4, kOutputs = 4;
#else
constexpr int kRows = 2, kOutputs = 4;
#endif

/// How neighbours along the depth are multiplied and added up.
template <class T>
struct Dot {
  static constexpr int kElements = kLanes;
  ECHELON_INLINE Floats get(const T* from) { return load(from); }
  ECHELON_INLINE Floats add(Floats sum, Floats x, Floats w) { return fused(x, w, sum); }
};

#if defined(__AVX512BF16__)
template <>
struct Dot<Bfloat16> {
  static constexpr int kElements = 2 * kLanes;
  ECHELON_INLINE Floats get(const Bfloat16* from) { return read<Floats>(from); }
  ECHELON_INLINE Floats add(Floats sum, Floats x, Floats w) {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w);
  }
};
#endif

using Four = float __attribute__((vector_size(16), may_alias));
using FourIndices = int32_t __attribute__((vector_size(16)));

ECHELON_INLINE Four quarters_added(Floats x) {
  float lanes[kLanes];
  write(lanes, x);
  Four sum = read<Four>(lanes);
  for (int i = 4; i < kLanes; i += 4) sum += read<Four>(lanes + i);
  return sum;
}

/// The totals of four vectors, side by side.
ECHELON_INLINE Four totals(const Floats* x) {
  Four a = quarters_added(x[0]), b = quarters_added(x[1]), c = quarters_added(x[2]), d = quarters_added(x[3]);
  constexpr FourIndices kLow{0, 4, 1, 5}, kHigh{2, 6, 3, 7}, kFirst{0, 1, 4, 5}, kSecond{2, 3, 6, 7};
  Four ab = __builtin_shuffle(a, b, kLow) + __builtin_shuffle(a, b, kHigh);
  Four cd = __builtin_shuffle(c, d, kLow) + __builtin_shuffle(c, d, kHigh);
  return __builtin_shuffle(ab, cd, kFirst) + __builtin_shuffle(ab, cd, kSecond);
}

/// The sum of what is left of the depth.
template <class T>
float rest(const T* x, const T* w, int64_t from, int64_t to) {
  float sum = 0;
  for (int64_t i = from; i < to; ++i) sum += widen(x[i]) * widen(w[i]);
  return sum;
}

/// `outputs`: one or four.
template <class T, int rows, int outputs>
void tile(const FewRows<T>& p, int64_t row, int64_t output) {
  const T *x = p.x + row * p.x_row, *w = p.weight + output * p.depth;
  int64_t whole = p.depth - p.depth % Dot<T>::kElements;
  Floats sums[rows][outputs] = {};
  for (int64_t i = 0; i < whole; i += Dot<T>::kElements) {
    Floats of_x[rows];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) of_x[r] = Dot<T>::get(x + r * p.x_row + i);
#pragma GCC unroll 8
    for (int o = 0; o < outputs; ++o) {
      Floats of_w = Dot<T>::get(w + o * p.depth + i);
      __builtin_prefetch(w + (o + outputs) * p.depth + i);  // of the next tile
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) sums[r][o] = Dot<T>::add(sums[r][o], of_x[r], of_w);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
    float whole_sums[outputs];
    if constexpr (outputs == 4) {
      write(whole_sums, totals(sums[r]));
    } else {
      whole_sums[0] = total(sums[r][0]);
    }
    for (int o = 0; o < outputs; ++o) {
      float sum = whole_sums[o] + rest(x + r * p.x_row, w + o * p.depth, whole, p.depth);
      narrow(p.bias ? sum + widen(p.bias[output + o]) : sum, p.y[(row + r) * p.y_row + output + o]);
    }
  }
}

template <class T, int outputs>
void all_rows(const FewRows<T>& p, int64_t output) {
  int64_t row = 0;
  for (; row + kRows <= p.rows; row += kRows) tile<T, kRows, outputs>(p, row, output);
  for (; row < p.rows; ++row) tile<T, 1, outputs>(p, row, output);
}

template <class T>
void multiply(const FewRows<T>& p, int64_t begin, int64_t end) {
  for (; begin + kOutputs <= end; begin += kOutputs) all_rows<T, kOutputs>(p, begin);
  for (; begin < end; ++begin) all_rows<T, 1>(p, begin);
}

}  // namespace

void few_rows_product(const FewRows<float>& product, int64_t begin, int64_t end) { multiply(product, begin, end); }
void few_rows_product(const FewRows<Bfloat16>& product, int64_t begin, int64_t end) { multiply(product, begin, end); }

}  // namespace echelon::kernels::ECHELON_ISA_NAME
