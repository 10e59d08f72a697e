// Which stored tensor is which of ours, and everything that can be wrong about that.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "models/interchange/folder_reader.h"

namespace echelon {

struct Match {
  std::map<std::string, StoredTensor> stored;
  std::vector<std::string> drawn;  ///< head tensors that the folder does not have
  std::vector<std::string> warnings;
};

/// Finds every tensor of the architecture. Errors: Error::input with two sorted lists of missing and unexpected
/// tensors, or naming the tensor whose shape or dtype is wrong.
Match match_tensors(const ModelFolder& folder, const Architecture& architecture);

/// Whether the head is tied to the token embedding, given that the config says so: two different matrices are kept
/// apart.
bool stored_as_tied(const ModelFolder& folder, std::vector<std::string>& warnings);

/// Whether the folder has any tensor of a language head.
bool has_head_tensors(const ModelFolder& folder);
bool has_pooler_tensors(const ModelFolder& folder);

}  // namespace echelon
