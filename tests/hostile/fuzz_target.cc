// One reader under libFuzzer: whatever the bytes, it accepts or throws its Error, and what it accepts goes round.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "cluster/base/error.h"
#include "tests/hostile/reader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const echelon::hostile::Reader reader = ECHELON_FUZZED();
  try {
    reader.read(std::string(reinterpret_cast<const char*>(data), size));
  } catch (const echelon::Error& error) {
    if (error.exit_code() != reader.exit_code) throw std::logic_error(error.what());
  }
  return 0;
}
