// One field of a message at a time.
#pragma once

#include <memory>
#include <vector>

#include <google/protobuf/message.h>

namespace echelon {

/// The fields that are set.
inline std::vector<const google::protobuf::FieldDescriptor*> fields_of(const google::protobuf::Message& message) {
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  message.GetReflection()->ListFields(message, &fields);
  return fields;
}

/// A copy that holds this field and no other.
inline std::unique_ptr<google::protobuf::Message> with_only(const google::protobuf::Message& message,
                                                            const google::protobuf::FieldDescriptor* field) {
  std::unique_ptr<google::protobuf::Message> copy(message.New());
  copy->CopyFrom(message);
  for (const auto* other : fields_of(message)) {
    if (other != field) copy->GetReflection()->ClearField(copy.get(), other);
  }
  return copy;
}

inline bool is_message(const google::protobuf::FieldDescriptor& field) {
  return field.cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE;
}

}  // namespace echelon
