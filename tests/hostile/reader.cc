#include "tests/hostile/reader.h"

#include <stdexcept>

namespace echelon::hostile {

std::vector<Reader> light_readers() {
  return {safetensors_reader(), safetensors_index_reader(),
          manifest_reader(),    metrics_reader(),
          recipe_reader(),      override_reader(),
          hosts_reader(),       hostfile_reader(),
          token_index_reader(), ledger_reader(),
          rank_output_reader()};
}

void same(const std::string& written, const std::string& again, const std::string& what) {
  if (written != again) throw std::logic_error(what + " changes on its way out and in: " + written + " | " + again);
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace echelon::hostile
