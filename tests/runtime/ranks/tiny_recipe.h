// Recipes that any number of ranks up to four divides, over a corpus of their own.
#pragma once

#include <string>
#include <vector>

#include "runtime/recipe/recipe.pb.h"

namespace echelon::testing {

/// The recipe `name` of those that ship, with `overrides`, without validation. Collective.
Recipe tiny_recipe(const std::string& name, const std::vector<std::string>& overrides);

}  // namespace echelon::testing
