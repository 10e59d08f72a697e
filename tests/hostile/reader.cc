#include "tests/hostile/reader.h"

#include <stdexcept>

namespace echelon::hostile {

void same(const std::string& written, const std::string& again, const std::string& what) {
  if (written != again) throw std::logic_error(what + " changes on its way out and in: " + written + " | " + again);
}

std::vector<Attack> json_attacks(const std::string& good, const std::vector<Attack>& more) {
  std::vector<Attack> all = {
      {"empty", "not valid JSON", ""},
      {"cut", "not valid JSON", good.substr(0, good.size() / 2)},
      {"text", "not valid JSON", "key: value"},
      {"zero byte behind", "zero byte", good + std::string(1, '\0')},
      {"no UTF-8", "not valid JSON", "{\"key\":\"\xff\"}"},
      {"deep", "nested deeper than 64", "{\"a\":" + repeated("[", 100'000)},
      {"array", "not a JSON object", "[]"},
      {"null", "not a JSON object", "null"},
  };
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace echelon::hostile
