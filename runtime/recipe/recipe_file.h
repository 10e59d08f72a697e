// Recipes from files: found by name, laid over their parents, changed by overrides, resolved.
#pragma once

#include <string>
#include <vector>

#include "runtime/recipe/check.h"
#include "runtime/recipe/text.h"

namespace echelon {

/// Folders in which `name` means `<folder>/name.textproto`, first match first.
using RecipeFolders = std::vector<std::string>;

/// A resolved recipe, and where each of its fields was written.
struct LoadedRecipe {
  Recipe recipe;
  Places places;
  std::string file;  ///< the one that was named, parents aside
};

/// Reads the file, or else the recipe of that name, its parents (at most 16 deep), and the overrides, the last wins;
/// then resolves. Nothing is checked yet that depends on ranks: check_recipe(loaded.recipe, ranks, loaded.places).
/// Errors: Error::recipe: no such recipe (with the nearest names), a missing or circular parent (with the chain), text
/// that cannot be parsed, an override that does not fit.
LoadedRecipe read_recipe(const std::string& name_or_file, const std::vector<std::string>& overrides,
                         const RecipeFolders& folders);

/// The recipe alone.
Recipe load_recipe(const std::string& name_or_file, const std::vector<std::string>& overrides,
                   const RecipeFolders& folders);

/// Every recipe in the folders, as its name: "base/tiny_decoder_clm".
std::vector<std::string> recipe_names(const RecipeFolders& folders);

}  // namespace echelon
