// Which instruction set kernels run with. The suite is run once for each, by ECHELON_ISA.
#include "models/kernels/isa.h"

#include <cstdlib>

#include <gtest/gtest.h>

namespace echelon {
namespace {

Isa named(const std::string& name) {
  for (Isa isa : {Isa::plain, Isa::avx2, Isa::avx512, Isa::avx512_bf16}) {
    if (name_of(isa) == name) return isa;
  }
  return Isa::avx512_bf16;
}

TEST(Isa, IsNeverMoreThanTheEnvironmentAllows) {
  const char* wanted = std::getenv("ECHELON_ISA");
  EXPECT_LE(isa(), named(wanted ? wanted : ""));
}

TEST(Isa, PlainIsAlwaysThere) {
  if (named(std::getenv("ECHELON_ISA") ? std::getenv("ECHELON_ISA") : "") == Isa::plain) EXPECT_EQ(isa(), Isa::plain);
}

}  // namespace
}  // namespace echelon
