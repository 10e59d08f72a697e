// Which values a field takes.
#pragma once

#include <functional>
#include <string>

#include <google/protobuf/message.h>

namespace echelon {

/// Calls `refuse(path, sentence)` for the first number or text outside of its field's range, through Parts.
void check_ranges(const google::protobuf::Message& message,
                  const std::function<void(const std::string& path, const std::string& what)>& refuse);

/// "at least 1", "in [0, 1)", or "" for a field that takes anything. `field` is "Message.field".
std::string range_of(const google::protobuf::FieldDescriptor& field);

}  // namespace echelon
