// `path=value`: one field of a recipe set from the command line.
#pragma once

#include <string>

#include "runtime/recipe/text.h"

namespace echelon {

/// Whether an argument reads as an override: a dotted path, then `=` or `+=`.
bool is_override(const std::string& argument);

/// Sets one field: `mesh.tp=2`, through Parts `optimizer.learning_rate=3e-4`, an element
/// `parameter_group.0.pattern=bias`, a further element `adapter+=[echelon/Lora] { rank: 8 }`, a Part by its name
/// `optimizer=Sgd`, a message by its text. Errors: Error::recipe, its place the override: unknown path (with the
/// nearest names), a value of another type.
void apply_override(Recipe& recipe, const std::string& text, Places& places);

}  // namespace echelon
