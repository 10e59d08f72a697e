// What a stored thing holds, and whether it is whole.
#pragma once

#include <string>
#include <vector>

#include "cluster/base/json.h"

namespace echelon {

struct Inspection {
  std::string text;                 ///< for people, several lines
  Json json;                        ///< the same for programs
  std::vector<std::string> damage;  ///< one sentence each; empty: whole
};

/// Looks at a safetensors file, a model folder, a checkpoint (also through `checkpoints/latest`, which names one), a
/// `.bin`/`.idx` prefix or file, or a run folder. With `verify`, every byte of a checkpoint is hashed and every token
/// read. Damage of what can be read in part is listed in `damage`. Errors: Error::input when it is nothing of that kind
/// or damaged at the root (a checkpoint: Error::storage).
Inspection inspect_path(const std::string& path, bool verify);

/// The error to end with when damage was found: Error::storage for checkpoints, else Error::input.
Error damage_error(const std::string& path, const Inspection& found);

/// The text alone. Errors: as above, and damage_error().
std::string inspect(const std::string& path, bool verify);

}  // namespace echelon
