#include "runtime/recipe/secrets.h"

#include <fmt/format.h>

#include "cluster/base/secret.h"
#include "runtime/recipe/fields.h"
#include "runtime/recipe/parts.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

std::string secret_of_element(const pb::Message& message, const pb::FieldDescriptor* field, int index,
                              const std::string& path) {
  const pb::Reflection* of = message.GetReflection();
  bool repeated = field->is_repeated();
  if (is_message(*field)) {
    return field_with_secret(repeated ? of->GetRepeatedMessage(message, field, index) : of->GetMessage(message, field),
                             path + ".");
  }
  if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_STRING) return "";
  return holds_secret(repeated ? of->GetRepeatedString(message, field, index) : of->GetString(message, field)) ? path
                                                                                                               : "";
}

}  // namespace

std::string field_with_secret(const pb::Message& message, const std::string& prefix) {
  if (const auto* any = dynamic_cast<const pb::Any*>(&message)) {
    return any->type_url().empty() ? "" : field_with_secret(*unpack_part(*any), prefix);
  }
  for (const pb::FieldDescriptor* field : fields_of(message)) {
    bool repeated = field->is_repeated();
    for (int i = 0; i < (repeated ? message.GetReflection()->FieldSize(message, field) : 1); ++i) {
      std::string path = prefix + field->name() + (repeated ? fmt::format(".{}", i) : "");
      std::string found = secret_of_element(message, field, i, path);
      if (!found.empty()) return found;
    }
  }
  return "";
}

}  // namespace echelon
