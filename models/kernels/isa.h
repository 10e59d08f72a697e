// The instruction sets that kernels are compiled for.
#pragma once

#include <string>

namespace echelon {

/// Each includes those before it. On processors other than x86-64 there is `plain` only.
enum class Isa { plain, avx2, avx512, avx512_bf16 };

/// The best that this processor has, or what the environment's ECHELON_ISA lowers it to: for tests and reports, since
/// results of different sets differ in their last bits. Decided once a process. Errors: Error::recipe when ECHELON_ISA
/// names no set.
Isa isa();

/// "avx512_bf16"
std::string name_of(Isa isa);

}  // namespace echelon
