#include "models/layers/product_table.h"

#include <array>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "models/kernels/isa.h"

namespace echelon {

namespace {

/// Who made a processor, and its family (extended family included).
struct Processor {
  bool amd = false;
  int family = 0;
};

Processor processor() {
#if defined(__x86_64__)
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  __get_cpuid(0, &eax, &ebx, &ecx, &edx);
  bool amd = ebx == signature_AMD_ebx && ecx == signature_AMD_ecx && edx == signature_AMD_edx;
  __get_cpuid(1, &eax, &ebx, &ecx, &edx);
  int base = (eax >> 8) & 15;
  return {amd, base == 15 ? base + static_cast<int>((eax >> 20) & 255) : base};
#else
  return {};
#endif
}

/// Roles of float32 products that oneDNN computes, by processor with AVX-512. In bfloat16 the stock operator calls
/// oneDNN itself, and the detour through the linear operator gains nothing. GFLOP/s a core, stock / oneDNN, by
/// tests/bench/products.py over the shapes of the reference model:
///
///     Zen 4    forward 94-100 / 102-108   input gradient 91-96 / 102-108   weight gradient 94-98 / 84-94
///     Zen 5    forward 120 / 225-275      input gradient 120 / 250-280     weight gradient 120 / 195-255
///
/// What is not here takes the stock operator: on Intel's, MKL is at home.
struct Entry {
  int family;  // AMD's
  bool forward, input_gradient, weight_gradient;
};
constexpr std::array kOneDnnFloat{
    Entry{.family = 25, .forward = true, .input_gradient = true, .weight_gradient = false},
    Entry{.family = 26, .forward = true, .input_gradient = true, .weight_gradient = true},
};

// A call costs 8 microseconds more than the stock operator's.
constexpr int64_t kLeastFlops = 32'000'000;

Entry entry_of_this_processor() {
  Processor here = processor();
  for (const Entry& entry : kOneDnnFloat) {
    if (here.amd && here.family == entry.family && isa() >= Isa::avx512) return entry;
  }
  return {};
}

const Entry& entry() {
  static const Entry found = entry_of_this_processor();
  return found;
}

}  // namespace

ProductLibrary product_library(ProductRole role, at::ScalarType dtype, int64_t flops) {
  if (dtype != at::ScalarType::Float || flops < kLeastFlops) return ProductLibrary::stock;
  bool onednn = role == ProductRole::forward          ? entry().forward
                : role == ProductRole::input_gradient ? entry().input_gradient
                                                      : entry().weight_gradient;
  return onednn ? ProductLibrary::onednn : ProductLibrary::stock;
}

std::string products_in_words() {
  if (!entry().forward) return "the framework's own";
  return entry().weight_gradient ? "oneDNN in float32" : "oneDNN in float32 but for weight gradients";
}

}  // namespace echelon
