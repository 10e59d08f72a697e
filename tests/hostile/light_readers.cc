#include "tests/hostile/reader.h"

namespace echelon::hostile {

std::vector<Reader> light_readers() {
  return {safetensors_reader(), safetensors_index_reader(),
          manifest_reader(),    metrics_reader(),
          recipe_reader(),      override_reader(),
          hosts_reader(),       hostfile_reader(),
          token_index_reader(), ledger_reader(),
          rank_output_reader()};
}

}  // namespace echelon::hostile
