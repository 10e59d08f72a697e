#include "runtime/recipe/merge.h"

#include "cluster/base/registry.h"
#include "runtime/recipe/fields.h"
#include "runtime/recipe/parts.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

void merge_part(pb::Any& base, const pb::Any& child) {
  if (part_name(base) != part_name(child)) {
    base = child;
    return;
  }
  std::unique_ptr<pb::Message> options = unpack_part(base);
  merge_over(*options, *unpack_part(child));
  pack_part(*options, base);
}

void merge_field(pb::Message& base, const pb::Message& child, const pb::FieldDescriptor* field) {
  const pb::Reflection* reflection = base.GetReflection();
  bool both = !field->is_repeated() && reflection->HasField(base, field);
  if (both && is_part_slot(*field)) {
    merge_part(dynamic_cast<pb::Any&>(*reflection->MutableMessage(&base, field)),
               dynamic_cast<const pb::Any&>(reflection->GetMessage(child, field)));
  } else if (both && is_message(*field)) {
    merge_over(*reflection->MutableMessage(&base, field), reflection->GetMessage(child, field));
  } else {
    // Everything else replaces: protobuf's own merge of this one field into an empty place.
    reflection->ClearField(&base, field);
    base.MergeFrom(*with_only(child, field));
  }
}

}  // namespace

void merge_over(pb::Message& base, const pb::Message& child) {
  for (const pb::FieldDescriptor* field : fields_of(child)) merge_field(base, child, field);
}

}  // namespace echelon
