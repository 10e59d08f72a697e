#include "comm/backends/reduction.h"

#include <algorithm>
#include <bit>

#include "cluster/base/error.h"

// One clone per instruction set, chosen at load time. Sanitizers are not up yet when the choice is made.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define ECHELON_VECTOR_CLONES
#else
#define ECHELON_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif

namespace echelon {

namespace {

// Sixteen bits of a bfloat16; c10::BFloat16's operators keep GCC from vectorising.
enum class Bits16 : uint16_t {};

inline double widen(double value) { return value; }
inline float widen(float value) { return value; }
inline uint64_t widen(uint64_t value) { return value; }
inline float widen(Bits16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value) << 16); }

inline void narrow(double value, double& out) { out = value; }
inline void narrow(float value, float& out) { out = value; }
inline void narrow(uint64_t value, uint64_t& out) { out = value; }
/// To nearest, ties to even; NaN stays NaN.
inline void narrow(float value, Bits16& out) {
  auto bits = std::bit_cast<uint32_t>(value);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  out = static_cast<Bits16>(value != value ? 0x7fc0 : rounded);
}

template <class T>
bool below(T a, T b) {
  return a < b;
}
template <>
inline bool below(uint64_t a, uint64_t b) {
  return static_cast<int64_t>(a) < static_cast<int64_t>(b);
}

template <Reduce op, class T>
[[gnu::always_inline]] inline T combine(T a, T b) {
  if constexpr (op == Reduce::sum) return a + b;
  // A NaN on either side wins, whatever the order.
  if constexpr (op == Reduce::max) return below(a, b) || b != b ? b : a;
  if constexpr (op == Reduce::min) return below(b, a) || b != b ? b : a;
}

template <Reduce op, class T>
[[gnu::always_inline]] inline void reduce_as(T* out, const void* const* sources, int count_of_sources, int64_t elements,
                                             bool accumulate) {
  using Wide = decltype(widen(T{}));
  constexpr int64_t block = 1024;  // stays in the first-level cache while every source is added to it
  Wide total[block];
  for (int64_t begin = 0; begin < elements; begin += block) {
    int64_t length = std::min(block, elements - begin);
    const T* first = static_cast<const T*>(sources[0]) + begin;
    for (int64_t i = 0; i < length; ++i) total[i] = widen(first[i]);
    for (int source = 1; source < count_of_sources; ++source) {
      const T* next = static_cast<const T*>(sources[source]) + begin;
      for (int64_t i = 0; i < length; ++i) total[i] = combine<op>(total[i], widen(next[i]));
    }
    T* to = out + begin;
    if (accumulate) {
      for (int64_t i = 0; i < length; ++i) total[i] = combine<op>(widen(to[i]), total[i]);
    }
    for (int64_t i = 0; i < length; ++i) narrow(total[i], to[i]);
  }
}

template <class T>
[[gnu::always_inline]] inline void reduce_by(Reduce op, T* out, const void* const* sources, int count_of_sources,
                                             int64_t elements, bool accumulate) {
  switch (op) {
    case Reduce::sum:
      return reduce_as<Reduce::sum>(out, sources, count_of_sources, elements, accumulate);
    case Reduce::max:
      return reduce_as<Reduce::max>(out, sources, count_of_sources, elements, accumulate);
    case Reduce::min:
      return reduce_as<Reduce::min>(out, sources, count_of_sources, elements, accumulate);
  }
}

ECHELON_VECTOR_CLONES
void reduce_clones(void* out, const void* const* sources, int count_of_sources, int64_t elements, at::ScalarType dtype,
                   Reduce op, bool accumulate) {
  switch (dtype) {
    case at::kDouble:
      return reduce_by(op, static_cast<double*>(out), sources, count_of_sources, elements, accumulate);
    case at::kFloat:
      return reduce_by(op, static_cast<float*>(out), sources, count_of_sources, elements, accumulate);
    case at::kBFloat16:
      return reduce_by(op, static_cast<Bits16*>(out), sources, count_of_sources, elements, accumulate);
    default:
      return reduce_by(op, static_cast<uint64_t*>(out), sources, count_of_sources, elements, accumulate);
  }
}

}  // namespace

void reduce(void* out, const void* const* sources, int count_of_sources, int64_t elements, at::ScalarType dtype,
            Reduce op, bool accumulate) {
  if (dtype != at::kDouble && dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kLong) {
    throw Error::internal("reduce", fmt::format("no sums of {}", c10::toString(dtype)));
  }
  reduce_clones(out, sources, count_of_sources, elements, dtype, op, accumulate);
}

}  // namespace echelon
