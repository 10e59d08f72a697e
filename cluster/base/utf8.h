// UTF-8, strictly: nothing overlong, no halves of surrogates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace echelon {

/// Bytes of the character that `text`, which is not empty, begins with, and its code; 0: they are no UTF-8.
size_t utf8_length(std::string_view text, uint32_t& code);
bool is_utf8(std::string_view text);

}  // namespace echelon
