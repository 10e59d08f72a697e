// What a resumed run may change.
#pragma once

#include <string>

#include "runtime/recipe/recipe.pb.h"

namespace echelon {

/// Resuming a run may change steps, checkpoint, evaluate, numerics, mesh, sharding and batch.micro. The path of the
/// first other field in which two resolved recipes differ ("optimizer.learning_rate"), or "". Descriptions do not count.
std::string first_forbidden_change(const Recipe& before, const Recipe& after);
/// Errors: Error::recipe unless the run whose recipe `stored` is may go on as `recipe` says.
void check_change(const std::string& stored, const Recipe& before, const Recipe& recipe);

}  // namespace echelon
