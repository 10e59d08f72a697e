// Text to ids and back, by the tokenizer of a folder: the Python tool at the edge.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace echelon {

/// "1,2,3" for each text. Errors: Error::input with the tool's reason.
std::vector<std::string> encode_texts(const std::string& tokenizer_folder, const std::vector<std::string>& texts);
/// The text for each "1,2,3".
std::vector<std::string> decode_ids(const std::string& tokenizer_folder, const std::vector<std::string>& ids);
/// Errors: Error::input for what the tool should not have said.
std::vector<int64_t> parse_ids(const std::string& text);

}  // namespace echelon
