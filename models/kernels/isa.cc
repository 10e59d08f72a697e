#include "models/kernels/isa.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include <fmt/format.h>

#include "cluster/base/error.h"

namespace echelon {

namespace {

constexpr std::array kNames{"plain", "avx2", "avx512", "avx512_bf16"};

Isa best() {
#if defined(__x86_64__)
  auto has_avx2 = [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); };
  auto has_avx512 = [] {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  };
  if (!has_avx2()) return Isa::plain;
  if (!has_avx512()) return Isa::avx2;
  return __builtin_cpu_supports("avx512bf16") ? Isa::avx512_bf16 : Isa::avx512;
#else
  return Isa::plain;
#endif
}

Isa lowered(Isa best) {
  const char* wanted = std::getenv("ECHELON_ISA");
  if (!wanted || !*wanted) return best;
  auto found = std::find(kNames.begin(), kNames.end(), std::string_view(wanted));
  if (found == kNames.end()) {
    throw Error::recipe("ECHELON_ISA", fmt::format("\"{}\" is no instruction set", wanted))
        .expected(fmt::format("{}", fmt::join(kNames, ", ")));
  }
  return std::min(best, static_cast<Isa>(found - kNames.begin()));
}

}  // namespace

Isa isa() {
  static const Isa chosen = lowered(best());
  return chosen;
}

std::string name_of(Isa isa) { return kNames[static_cast<size_t>(isa)]; }

}  // namespace echelon
