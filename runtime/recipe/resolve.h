// A recipe with nothing left unsaid.
#pragma once

#include <string>
#include <vector>

#include "runtime/recipe/recipe.pb.h"

namespace echelon {

/// Writes every default into the recipe, those of Parts included, and the family's into the architecture. What only the
/// data can tell (vocabulary, special ids) stays absent. Resolving twice is resolving once.
void resolve(Recipe& recipe);

/// Families whose architecture a recipe can spell out: "gpt2", "llama", "bert".
const std::vector<std::string>& known_families();

}  // namespace echelon
