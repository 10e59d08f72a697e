#include "tests/hostile/reader.h"

namespace echelon::hostile {

std::vector<Reader> all_readers() {
  std::vector<Reader> all = light_readers();
  all.push_back(model_config_reader());
  all.push_back(adapter_config_reader());
  return all;
}

}  // namespace echelon::hostile
