// Inputs for tests of kernels.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "models/kernels/kernel_math.h"

namespace echelon::testing {

/// Empty, single, odd, and longer than any vector.
inline const std::vector<int64_t> kLengths{0, 1, 7, 31, 64, 1003};

/// Normal draws, which begin one element behind an aligned address.
template <class T>
class Values {
 public:
  explicit Values(int64_t count, double deviation = 3, uint32_t seed = 1) : memory_(count + 1) {
    std::mt19937 bits(seed);
    std::normal_distribution<float> normal(0, static_cast<float>(deviation));
    for (int64_t i = 0; i < count; ++i) set(i, normal(bits));
  }
  T* data() { return memory_.data() + 1; }
  void set(int64_t i, float value) { put(value, data()[i]); }
  double at(int64_t i) { return get(data()[i]); }

 private:
  static void put(float value, float& to) { to = value; }
  static void put(float value, Bfloat16& to) {
    to.bits = static_cast<uint16_t>(__builtin_bit_cast(uint32_t, value) >> 16);
  }
  static double get(float value) { return value; }
  static double get(Bfloat16 value) { return __builtin_bit_cast(float, static_cast<uint32_t>(value.bits) << 16); }
  std::vector<T> memory_;
};

/// Half a unit in the last place, relative.
template <class T>
constexpr double kRounding = 0x1p-24;
template <>
inline constexpr double kRounding<Bfloat16> = 0x1p-8;

}  // namespace echelon::testing
