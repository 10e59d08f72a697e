// Secrets that somebody wrote into a recipe.
#pragma once

#include <string>

#include <google/protobuf/message.h>

namespace echelon {

/// The dotted path, below `prefix`, of the first field of text that holds what looks like a secret; "" when none does.
std::string field_with_secret(const google::protobuf::Message& message, const std::string& prefix);

}  // namespace echelon
