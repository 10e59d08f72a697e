// Texts of a recipe, Parts included.
#pragma once

#include <string>
#include <string_view>

#include <google/protobuf/message.h>

namespace echelon {

/// The dotted path, below `prefix`, of the first field of text that `fits`; "" when none does.
std::string find_text(const google::protobuf::Message& message, const std::string& prefix,
                      bool (*fits)(std::string_view text));

}  // namespace echelon
