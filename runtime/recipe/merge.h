// A child's recipe laid over its parent's.
#pragma once

#include <google/protobuf/message.h>

namespace echelon {

/// Lays `child` over `base`: a scalar replaces, a message merges field by field, a Part of the same type merges and of
/// another type replaces, a repeated field replaces.
void merge_over(google::protobuf::Message& base, const google::protobuf::Message& child);

}  // namespace echelon
