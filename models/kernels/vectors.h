// Vectors of the instruction set that a kernel is compiled for.
#pragma once

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "models/kernels/kernel_math.h"

// Unnamed: what is in here must not be given to objects compiled for another set.
namespace echelon::kernels::ECHELON_ISA_NAME {
namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
using Floats = __m512;
constexpr __mmask16 kAll = 0xffff;  // GCC 12 takes the forms without a mask for reads of what nobody wrote
#elif defined(__AVX2__)
constexpr int kLanes = 8;
using Floats = __m256;
#else
constexpr int kLanes = 4;
using Floats = float __attribute__((vector_size(16), may_alias));
#endif
using Words = uint32_t __attribute__((vector_size(4 * kLanes), may_alias));
using Halves = uint16_t __attribute__((vector_size(2 * kLanes), may_alias));

template <class Vector>
ECHELON_INLINE Vector read(const void* from) {
  Vector x;
  __builtin_memcpy(&x, from, sizeof x);
  return x;
}
template <class Vector>
ECHELON_INLINE void write(void* to, Vector x) {
  __builtin_memcpy(to, &x, sizeof x);
}

ECHELON_INLINE Floats load(const float* from) { return read<Floats>(from); }
ECHELON_INLINE Floats load(const Bfloat16* from) {
  return (Floats)(__builtin_convertvector(read<Halves>(from), Words) << 16);
}
ECHELON_INLINE void store(float* to, Floats x) { write(to, x); }

ECHELON_INLINE Floats splat(float x) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(x);
#elif defined(__AVX2__)
  return _mm256_set1_ps(x);
#else
  return Floats{x, x, x, x};
#endif
}

/// a * b + c
ECHELON_INLINE Floats fused(Floats a, Floats b, Floats c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}

/// The larger; b where either is not a number.
ECHELON_INLINE Floats larger(Floats a, Floats b) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(kAll, a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

ECHELON_INLINE float total(Floats x) {
  using Four = float __attribute__((vector_size(16), may_alias));
  float lanes[kLanes];
  write(lanes, x);
  Four sum = read<Four>(lanes);
  for (int i = 4; i < kLanes; i += 4) sum += read<Four>(lanes + i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/// To the nearest, ties to even; what is not a number stays so.
ECHELON_INLINE void store(Bfloat16* to, Floats x) {
#if defined(__AVX512BF16__)
  write(to, (Halves)_mm512_cvtneps_pbh(x));
#else
  Words bits = (Words)x;
  Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  rounded = x == x ? rounded : Words{} + 0x7fc0;
  write(to, __builtin_convertvector(rounded, Halves));
#endif
}

/// 2^x within 2 units in the last place for x below 127; 0 below -126.5 or, with AVX-512, where float32 ends.
/// The polynomial is the minimax one of degree 5 for the relative error, 7.5e-8.
ECHELON_INLINE Floats power_of_two(Floats x) {
#if defined(__AVX512F__)
  x = larger(splat(-160), x);
  Floats whole = _mm512_maskz_roundscale_ps(kAll, x, _MM_FROUND_TO_NEAREST_INT);
#else
  x = larger(splat(-127), x);
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the lowest bits.
  Floats shifted = x + splat(12582912.0f), whole = shifted - splat(12582912.0f);
#endif
  Floats part = x - whole, y = splat(0.0013276472f);
  y = fused(y, part, splat(0.0096755413f));
  y = fused(y, part, splat(0.0555071327f));
  y = fused(y, part, splat(0.2402211972f));
  y = fused(y, part, splat(0.6931469671f));
  y = fused(y, part, splat(1.0f));
#if defined(__AVX512F__)
  return _mm512_maskz_scalef_ps(kAll, y, whole);
#else
  return y * (Floats)(((Words)shifted - 0x4b400000u + 127u) << 23);
#endif
}

}  // namespace
}  // namespace echelon::kernels::ECHELON_ISA_NAME
