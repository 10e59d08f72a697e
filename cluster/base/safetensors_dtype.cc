#include <algorithm>
#include <array>

#include "cluster/base/safetensors.h"
#include "cluster/base/text.h"

namespace echelon {

namespace {

struct Fact {
  std::string_view name;
  int bits;
  bool loadable;
};

constexpr std::array<Fact, 22> facts = {{
    {"BOOL", 8, true},     {"F4", 4, false},          {"F6_E2M3", 6, false},     {"F6_E3M2", 6, false},
    {"U8", 8, true},       {"I8", 8, true},           {"F8_E5M2", 8, true},      {"F8_E4M3", 8, true},
    {"F8_E8M0", 8, false}, {"F8_E4M3FNUZ", 8, false}, {"F8_E5M2FNUZ", 8, false}, {"I16", 16, true},
    {"U16", 16, true},     {"F16", 16, true},         {"BF16", 16, true},        {"I32", 32, true},
    {"U32", 32, true},     {"F32", 32, true},         {"C64", 64, false},        {"F64", 64, true},
    {"I64", 64, true},     {"U64", 64, true},
}};

}  // namespace

std::string_view dtype_name(DType dtype) { return facts[static_cast<size_t>(dtype)].name; }

int64_t dtype_bits(DType dtype) { return facts[static_cast<size_t>(dtype)].bits; }

bool dtype_is_loadable(DType dtype) { return facts[static_cast<size_t>(dtype)].loadable; }

DType parse_dtype(std::string_view name) {
  auto found = std::find_if(facts.begin(), facts.end(), [&](const Fact& fact) { return fact.name == name; });
  if (found != facts.end()) return static_cast<DType>(found - facts.begin());
  std::vector<std::string> names;
  for (const Fact& fact : facts) names.emplace_back(fact.name);
  throw Error::input("", fmt::format("unknown dtype \"{}\"", name.substr(0, 40))).remedy(did_you_mean(name, names));
}

uint64_t tensor_bytes(DType dtype, const std::vector<int64_t>& shape) {
  uint64_t bits = dtype_bits(dtype), count = 1;
  for (int64_t size : shape) {
    if (size < 0 || __builtin_mul_overflow(count, static_cast<uint64_t>(size), &count)) {
      throw Error::internal("", fmt::format("shape [{}] overflows", fmt::join(shape, ", ")));
    }
  }
  if (__builtin_mul_overflow(count, bits, &bits)) {
    throw Error::internal("", fmt::format("shape [{}] of {} overflows", fmt::join(shape, ", "), dtype_name(dtype)));
  }
  if (bits % 8 != 0) {
    throw Error::internal(
        "", fmt::format("shape [{}] of {} does not fill whole bytes", fmt::join(shape, ", "), dtype_name(dtype)));
  }
  return bits / 8;
}

}  // namespace echelon
