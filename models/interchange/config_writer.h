// The config.json that stands beside weights that Echelon writes.
#pragma once

#include <c10/core/ScalarType.h>

#include "models/interchange/family.h"

namespace echelon {

/// `config` with the keys that depend on the architecture as it was decided (class, ties, both spellings of rotary
/// positions), and whole numbers of floating keys as floats. Keys that nobody here knows stay as they are.
Json completed_config(Json config, const Architecture& architecture);

/// The text of config.json: as transformers writes it, dtype in the spellings of both its major versions.
std::string config_text(Json config, at::ScalarType dtype);
/// The text of a generation_config.json that follows from a config.
std::string generation_config_text(const Json& config);

/// "float32". Errors: Error::internal for a type that no weights are written in.
std::string dtype_text(at::ScalarType dtype);

}  // namespace echelon
