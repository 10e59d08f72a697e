#include "runtime/recipe/changes.h"

#include <algorithm>
#include <array>

#include "cluster/base/error.h"
#include "cluster/base/registry.h"
#include "runtime/recipe/fields.h"
#include "runtime/recipe/parts.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

constexpr std::array kFree = {"steps", "checkpoint", "evaluate",    "numerics",
                              "mesh",  "sharding",   "batch.micro", "description"};

std::string first_difference(const pb::Message& before, const pb::Message& after, const std::string& prefix);

std::string difference_of_parts(const pb::Any& before, const pb::Any& after, const std::string& path) {
  if (part_name(before) != part_name(after)) return path;
  return first_difference(*unpack_part(before), *unpack_part(after), path + ".");
}

std::string difference_in(const pb::Message& before, const pb::Message& after, const pb::FieldDescriptor* field,
                          const std::string& path) {
  const pb::Reflection* reflection = before.GetReflection();
  bool in_both = is_message(*field) && !field->is_repeated() && reflection->HasField(before, field) &&
                 reflection->HasField(after, field);
  if (!in_both) {
    bool same =
        with_only(before, field)->SerializePartialAsString() == with_only(after, field)->SerializePartialAsString();
    return same ? "" : path;
  }
  const pb::Message& old_value = reflection->GetMessage(before, field);
  const pb::Message& new_value = reflection->GetMessage(after, field);
  if (!is_part_slot(*field)) return first_difference(old_value, new_value, path + ".");
  return difference_of_parts(dynamic_cast<const pb::Any&>(old_value), dynamic_cast<const pb::Any&>(new_value), path);
}

std::string first_difference(const pb::Message& before, const pb::Message& after, const std::string& prefix) {
  const pb::Descriptor* descriptor = before.GetDescriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    std::string path = prefix + descriptor->field(i)->name();
    if (std::find(kFree.begin(), kFree.end(), path) != kFree.end()) continue;
    std::string difference = difference_in(before, after, descriptor->field(i), path);
    if (!difference.empty()) return difference;
  }
  return "";
}

}  // namespace

std::string first_forbidden_change(const Recipe& before, const Recipe& after) {
  return first_difference(before, after, "");
}

void check_change(const std::string& stored, const Recipe& before, const Recipe& recipe) {
  std::string change = first_forbidden_change(before, recipe);
  if (change.empty()) return;
  throw Error::recipe(stored, fmt::format("this run was started with another {}", change))
      .remedy(
          "a resumed run may change steps, checkpoint, evaluate, numerics, mesh, sharding and batch.micro; name "
          "another folder with --out");
}

}  // namespace echelon
