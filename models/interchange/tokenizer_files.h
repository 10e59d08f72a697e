// The files of a model folder that are copied through, byte for byte.
#pragma once

#include <string>
#include <string_view>

namespace echelon {

/// Whether a file of this name belongs to a tokenizer or a preprocessor.
bool is_tokenizer_file(std::string_view name);
bool has_tokenizer(const std::string& folder);
/// Copies them. Errors: Error::input when one cannot be read, Error::storage when one cannot be written.
void copy_tokenizer(const std::string& from, const std::string& to);

}  // namespace echelon
