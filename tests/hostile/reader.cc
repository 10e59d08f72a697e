#include "tests/hostile/reader.h"

#include <stdexcept>

namespace echelon::hostile {

void same(const std::string& written, const std::string& again, const std::string& what) {
  if (written != again) throw std::logic_error(what + " changes on its way out and in: " + written + " | " + again);
}

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

}  // namespace echelon::hostile
