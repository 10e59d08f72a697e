#include "launch/options/resume.h"

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "runtime/recipe/changes.h"
#include "runtime/recipe/recipe_file.h"

namespace echelon {

void check_run_folder(const std::string& out, const Recipe& recipe, const std::string& resume) {
  std::string stored = join_path(out, "recipe.textproto");
  if (!exists(stored)) return;
  if (resume == "never") {
    throw Error::recipe(out, "holds a run, and --resume=never was asked")
        .remedy("name another folder with --out, or leave --resume out");
  }
  check_change(stored, load_recipe(stored, {}, {}), recipe);
}

}  // namespace echelon
