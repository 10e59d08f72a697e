// Which base an adapter belongs to.
#pragma once

#include <string>

#include "models/interchange/peft_folder.h"

namespace echelon {

/// One hash of a folder's tensors: their names, dtypes, shapes and bytes, in the order of names.
std::string hash_of_model(const std::string& folder);

/// Refuses a base that `adapter` was not trained on, as far as the adapter says: Error::input.
void check_base(const std::string& base, const PeftFolder& adapter);

}  // namespace echelon
