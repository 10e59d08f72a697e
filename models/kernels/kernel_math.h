// Arithmetic for kernels: loop bodies that the compiler turns into vectors of whatever instruction set it compiles for.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define ECHELON_INLINE static __host__ __device__ __forceinline__
#else
#define ECHELON_INLINE static inline __attribute__((always_inline))
#endif

namespace echelon {

/// The upper half of a float32.
struct Bfloat16 {
  uint16_t bits;
};

}  // namespace echelon

#if defined(ECHELON_ISA_NAME)

namespace echelon::kernels::ECHELON_ISA_NAME {

ECHELON_INLINE float widen(float x) { return x; }
ECHELON_INLINE float widen(Bfloat16 x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16); }

/// To the nearest, ties to even; what is not a number stays so.
ECHELON_INLINE void narrow(float x, float& to) { to = x; }
ECHELON_INLINE void narrow(float x, Bfloat16& to) {
  uint32_t bits = __builtin_bit_cast(uint32_t, x);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  to.bits = static_cast<uint16_t>(x == x ? rounded : 0x7fc0);
}

/// e^x within 2 units in the last place; 0 below -87.3, at most 2.4e38.
/// Source: Cephes (Moshier 1989), expf.
ECHELON_INLINE float exponential(float x) {
  float limited = x > 88.3f ? 88.3f : x;
  limited = limited < -87.3f ? -87.3f : limited;
  // Adding 1.5 * 2^23 rounds to an integer, which then stands in the lowest bits.
  constexpr float kRound = 12582912.0f;
  float shifted = limited * 1.44269504088896341f + kRound;
  int32_t exponent = __builtin_bit_cast(int32_t, shifted) - __builtin_bit_cast(int32_t, kRound);
  float whole = shifted - kRound;
  float r = limited - whole * 0.693359375f;
  r = r - whole * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  float scale = __builtin_bit_cast(float, (exponent + 127) << 23);
  return x < -87.3f ? 0.0f : p * scale;
}

ECHELON_INLINE float logistic(float x) { return 1.0f / (1.0f + exponential(-x)); }

/// The error function within 3e-7.
/// Source: the rational minimax approximation of Eigen (generic_fast_erf).
ECHELON_INLINE float error_function(float x) {
  float z = x > 4.0f ? 4.0f : x;
  z = z < -4.0f ? -4.0f : z;
  float s = z * z;
  float p = -2.72614225801306e-10f;
  p = p * s + 2.77068142495902e-08f;
  p = p * s + -2.10102402082508e-06f;
  p = p * s + -5.69250639462346e-05f;
  p = p * s + -7.34990630326855e-04f;
  p = p * s + -2.95459980854025e-03f;
  p = p * s + -1.60960333262415e-02f;
  float q = -1.45660718464996e-05f;
  q = q * s + -2.13374055278905e-04f;
  q = q * s + -1.68282697438203e-03f;
  q = q * s + -7.37332916720468e-03f;
  q = q * s + -1.42647390514189e-02f;
  float value = z * p / q;
  value = x > 4.0f ? 1.0f : value;
  return x < -4.0f ? -1.0f : value;
}

}  // namespace echelon::kernels::ECHELON_ISA_NAME

#endif
