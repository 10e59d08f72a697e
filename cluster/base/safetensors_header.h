// The header of a safetensors file, both ways. Private to cluster/base.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cluster/base/safetensors.h"

namespace echelon {

inline constexpr uint64_t safetensors_header_limit = 100'000'000;

/// Puts entries into the order of a file and gives them their offsets. Gives the count of all their bytes.
uint64_t arrange_entries(std::vector<TensorEntry>& entries);

/// Length and header, padded: everything that stands before the tensors' bytes.
std::string encode_header(const std::vector<TensorEntry>& entries, const std::map<std::string, std::string>& metadata);

}  // namespace echelon
