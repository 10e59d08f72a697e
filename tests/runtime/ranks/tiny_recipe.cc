#include "tests/runtime/ranks/tiny_recipe.h"

#include <cstdlib>
#include <filesystem>

#include "runtime/recipe/recipe_file.h"
#include "tests/runtime/corpus.h"
#include "tests/test_session.h"

namespace echelon::testing {

Recipe tiny_recipe(const std::string& name, const std::vector<std::string>& overrides) {
  std::string prefix = temporary_folder() + "/train";
  if (session().world().rank() == 0 && !std::filesystem::exists(prefix + ".bin")) write_corpus(prefix, 5000, 61, 1);
  session().world().barrier({.name = "corpus"});
  std::vector<std::string> all{"data.train.path=" + prefix, "steps=20", "batch.global=12", "batch.micro=1",
                               "data.train.sequence_length=16"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  Recipe recipe = load_recipe(name, all, {std::string(std::getenv("ECHELON_SOURCE")) + "/launch/recipes"});
  recipe.mutable_data()->clear_validation();
  return recipe;
}

}  // namespace echelon::testing
