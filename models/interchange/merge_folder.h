// An adapter folded into a model folder, and taken out again bit by bit.
#pragma once

#include <string>

#include "cluster/base/registry.h"
#include "comm/group.h"

namespace echelon {

/// Writes `base` with `adapter` folded in as a folder that transformers loads, with the same files and dtypes, and
/// beside it merge_record.safetensors: the adapter, hashes of the tensors that changed, and what rounding took away,
/// compressed. Rank r writes every (world size)th file; the bytes do not depend on ranks or processors. Tensors are
/// streamed, one at a time. Collective. Errors: Error::input when the adapter does not fit, was trained on another
/// base, or cannot be folded in; Error::storage.
void merge_folder(const std::string& base, const std::string& adapter, const std::string& out, const Registry& registry,
                  const Group& world);

/// Writes the base that `merged` was made of. Collective. Errors: Error::input when the folder holds no record, or was
/// changed since; Error::storage.
void unmerge_folder(const std::string& merged, const std::string& out, const Registry& registry, const Group& world);

}  // namespace echelon
