// One reader under libFuzzer: whatever the bytes, it accepts or throws its Error, and what it accepts goes round.
// `--write_seeds=FOLDER` writes what it begins with.
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "cluster/base/error.h"
#include "tests/hostile/seeds.h"

namespace {

const echelon::hostile::Reader& fuzzed() {
  static const echelon::hostile::Reader reader = ECHELON_FUZZED();
  return reader;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* count, char*** values) {
  constexpr std::string_view flag = "--write_seeds=";
  fuzzed();  // its table takes seconds to make, which no input should be blamed for
  for (int i = 1; i < *count; ++i) {
    std::string_view argument = (*values)[i];
    if (!argument.starts_with(flag)) continue;
    echelon::hostile::write_seeds(std::string(argument.substr(flag.size())), fuzzed());
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    fuzzed().read(std::string(reinterpret_cast<const char*>(data), size));
  } catch (const echelon::Error& error) {
    if (error.exit_code() != fuzzed().exit_code) throw std::logic_error(error.what());
  }
  return 0;
}
