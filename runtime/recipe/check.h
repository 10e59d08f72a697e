// What is wrong with a recipe before anything is started.
#pragma once

#include <string>

#include "runtime/recipe/text.h"

namespace echelon {

/// Refuses a resolved recipe that cannot run on `ranks` ranks, or asks for what is not built yet.
/// Errors: Error::recipe, its place where the field was written.
void check_recipe(const Recipe& recipe, int ranks, const Places& places);
/// The same where positions are not known: `place` (a file) stands in errors.
void check_recipe(const Recipe& recipe, int ranks, const std::string& place);

/// Ranks over which the batch is split: ranks / tp.
int data_parallel_ranks(const Recipe& recipe, int ranks);

}  // namespace echelon
