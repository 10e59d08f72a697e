#include "tests/hostile/reader.h"

namespace echelon::hostile {

std::vector<Reader> all_readers() {
  std::vector<Reader> all = light_readers();
  for (auto reader : {model_config_reader, adapter_config_reader, checkpoint_state_reader, token_meta_reader})
    all.push_back(reader());
  return all;
}

}  // namespace echelon::hostile
