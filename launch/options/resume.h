// Whether a run may go on in the folder it was given.
#pragma once

#include <string>

#include "runtime/recipe/recipe.pb.h"

namespace echelon {

/// Compares with OUT/recipe.textproto, if there is one. `resume` is the flag: auto, never or a path.
/// Errors: Error::recipe when the folder holds a run and `never` was asked, when a field differs that may not change
/// (it is named), or when the stored recipe cannot be read.
void check_run_folder(const std::string& out, const Recipe& recipe, const std::string& resume);

}  // namespace echelon
