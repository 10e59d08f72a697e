// `echelon recipes` and `echelon describe`.
#pragma once

#include <string>

#include "launch/options/installation.h"

namespace echelon {

/// Every recipe with its one-line description; with `json`, an object by name.
std::string list_recipes(const Installation& installation, bool json);

/// A Part (`AdamW`), a group of recipe fields (`mesh`), or a recipe: comments, fields, types, defaults, ranges. Without
/// a name, every Part by kind. Errors: Error::usage with the nearest names.
std::string describe(const std::string& name, const Installation& installation);

}  // namespace echelon
