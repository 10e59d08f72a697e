#include "runtime/recipe/texts.h"

#include <fmt/format.h>

#include "runtime/recipe/fields.h"
#include "runtime/recipe/parts.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

std::string find_in_element(const pb::Message& message, const pb::FieldDescriptor* field, int index,
                            const std::string& path, bool (*fits)(std::string_view)) {
  const pb::Reflection* of = message.GetReflection();
  bool repeated = field->is_repeated();
  if (is_message(*field)) {
    const pb::Message& inner =
        repeated ? of->GetRepeatedMessage(message, field, index) : of->GetMessage(message, field);
    return find_text(inner, path + ".", fits);
  }
  if (field->cpp_type() != pb::FieldDescriptor::CPPTYPE_STRING) return "";
  std::string text = repeated ? of->GetRepeatedString(message, field, index) : of->GetString(message, field);
  return fits(text) ? path : "";
}

}  // namespace

std::string find_text(const pb::Message& message, const std::string& prefix, bool (*fits)(std::string_view)) {
  if (const auto* any = dynamic_cast<const pb::Any*>(&message)) {
    return any->type_url().empty() ? "" : find_text(*unpack_part(*any), prefix, fits);
  }
  for (const pb::FieldDescriptor* field : fields_of(message)) {
    bool repeated = field->is_repeated();
    for (int i = 0; i < (repeated ? message.GetReflection()->FieldSize(message, field) : 1); ++i) {
      std::string path = prefix + field->name() + (repeated ? fmt::format(".{}", i) : "");
      std::string found = find_in_element(message, field, i, path, fits);
      if (!found.empty()) return found;
    }
  }
  return "";
}

}  // namespace echelon
