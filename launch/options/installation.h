// Where this installation's parts lie, found from the running program.
#pragma once

#include <string>

#include "runtime/recipe/recipe_file.h"

namespace echelon {

/// `<bin>/echelon` and `<bin>/echelon-rank` stand beside `<bin>/../share/echelon/{recipes,prepare,parts.pb}`, in a
/// build folder as in an installed tree.
struct Installation {
  std::string bin;             ///< folder of this program
  std::string rank_program;    ///< echelon-rank
  std::string share;           ///< share/echelon
  std::string prepare_script;  ///< prepare.py
  std::string python;          ///< that of .venv beside the sources, else python3
  RecipeFolders recipes;
};

Installation find_installation();

}  // namespace echelon
