#include "cluster/base/utf8.h"

namespace echelon {

size_t utf8_length(std::string_view text, uint32_t& code) {
  auto first = static_cast<unsigned char>(text[0]);
  size_t length = first < 0x80 ? 1 : first >= 0xc2 && first < 0xe0 ? 2 : (first >> 4) == 0xe ? 3 : first < 0xf5 ? 4 : 0;
  if (length == 4 && first < 0xf0) length = 0;
  if (length > text.size()) return 0;
  code = length < 2 ? first : first & (0x7f >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((text[i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (text[i] & 0x3f);
  }
  constexpr uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  bool is_surrogate = code >= 0xd800 && code < 0xe000;
  return length == 0 || code < least[length] || code > 0x10ffff || is_surrogate ? 0 : length;
}

bool is_utf8(std::string_view text) {
  uint32_t code = 0;
  while (!text.empty()) {
    size_t length = utf8_length(text, code);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

}  // namespace echelon
