// The manifest of a checkpoint: every file with its size and hashes, under one root hash.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/store/hash.h"

namespace echelon {

/// `manifest.json`. Canonical: the same content is the same text, so any changed byte is found.
struct Manifest {
  int64_t schema = 1;
  int64_t step = 0;
  int64_t epoch = 0;              ///< of the claim it was committed under (lease.h); 0: none, and not in the text
  std::string layout;             ///< mesh, stage and ranks that wrote it, for people and for `inspect`
  std::string previous_root;      ///< of the checkpoint before; "" for the first
  std::vector<FileRecord> files;  ///< sorted by name
  std::string root;               ///< XXH3-128 over all of the above: the checkpoint's identity

  const FileRecord* find(std::string_view name) const;
  int64_t total_bytes() const;
};

/// Sorts the files and computes the root. Errors: Error::storage for a file named twice or with a path in its name.
Manifest seal(Manifest manifest);
std::string dump_manifest(const Manifest& manifest);
/// Errors: Error::storage for damage of any kind, a root that does not fit, or a schema of a later Echelon.
Manifest parse_manifest(std::string_view text, const std::string& place);

}  // namespace echelon
