// What fuzzers begin with.
#pragma once

#include <string>

#include "tests/hostile/reader.h"

namespace echelon::hostile {

/// Writes FOLDER/NUMBER of each attack and good file that is not too long.
void write_seeds(const std::string& folder, const Reader& reader);

}  // namespace echelon::hostile
