// What a stored thing holds, and whether it is whole.
#pragma once

#include <string>

#include "cluster/base/json.h"

namespace echelon {

struct Inspection {
  std::string text;       ///< for people, several lines
  Json json;              ///< the same for programs
  bool whole = true;      ///< false: damage was found; `text` says where
};

/// Looks at a safetensors file, a model folder, a checkpoint, a `.bin`/`.idx` prefix or file, or a run folder. With
/// `verify`, every byte of a checkpoint is hashed and every token read. Damage of what can be read in part is reported
/// in `whole`. Errors: Error::input when it is nothing of that kind or damaged at the root (a checkpoint: Error::storage).
Inspection inspect_path(const std::string& path, bool verify);

/// The text alone. Errors: as above, and for damage as well (Error::storage for checkpoints, else Error::input).
std::string inspect(const std::string& path, bool verify);

}  // namespace echelon
