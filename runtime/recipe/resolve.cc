#include "runtime/recipe/resolve.h"

#include <algorithm>

#include "cluster/base/error.h"
#include "runtime/recipe/fields.h"
#include "runtime/recipe/parts.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

// Reading an absent field gives its default.
void keep_default(pb::Message& message, const pb::FieldDescriptor* field) {
  const pb::Reflection* of = message.GetReflection();
  switch (field->cpp_type()) {
    case pb::FieldDescriptor::CPPTYPE_INT32:
      return of->SetInt32(&message, field, of->GetInt32(message, field));
    case pb::FieldDescriptor::CPPTYPE_INT64:
      return of->SetInt64(&message, field, of->GetInt64(message, field));
    case pb::FieldDescriptor::CPPTYPE_DOUBLE:
      return of->SetDouble(&message, field, of->GetDouble(message, field));
    case pb::FieldDescriptor::CPPTYPE_BOOL:
      return of->SetBool(&message, field, of->GetBool(message, field));
    case pb::FieldDescriptor::CPPTYPE_ENUM:
      return of->SetEnum(&message, field, of->GetEnum(message, field));
    case pb::FieldDescriptor::CPPTYPE_STRING:
      return of->SetString(&message, field, of->GetString(message, field));
    default:
      throw Error::internal(field->full_name(), "options use a type that recipes do not have");
  }
}

// Scalar defaults of one message and of the messages that are there; Parts are left to each_part.
void write_defaults(pb::Message& message) {
  const pb::Descriptor* descriptor = message.GetDescriptor();
  const pb::Reflection* reflection = message.GetReflection();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const pb::FieldDescriptor* field = descriptor->field(i);
    bool message_inside = is_message(*field) && !is_part_slot(*field);
    if (message_inside && field->is_repeated()) {
      for (int k = 0; k < reflection->FieldSize(message, field); ++k) {
        write_defaults(*reflection->MutableRepeatedMessage(&message, field, k));
      }
    } else if (message_inside && reflection->HasField(message, field)) {
      write_defaults(*reflection->MutableMessage(&message, field));
    } else if (field->has_default_value() && !reflection->HasField(message, field)) {
      keep_default(message, field);
    }
  }
}

// What a family's own configuration class takes where nothing is said.
struct FamilyDefaults {
  int64_t positions;
  double norm_epsilon;
  bool tied;
};

FamilyDefaults defaults_of(const std::string& family) {
  if (family == "llama") return {2048, 1e-6, false};
  if (family == "bert") return {512, 1e-12, true};
  return {1024, 1e-5, true};  // gpt2
}

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

void write_llama_defaults(ArchitectureConfig& shape) {
  if (!shape.has_kv_heads()) shape.set_kv_heads(shape.heads());
  bool divides = shape.heads() > 0 && shape.width() % shape.heads() == 0;
  if (!shape.has_head_width() && divides) shape.set_head_width(shape.width() / shape.heads());
  if (!shape.has_rope_theta()) shape.set_rope_theta(10000);
}

void write_family_defaults(ArchitectureConfig& shape) {
  const auto& families = known_families();
  if (std::find(families.begin(), families.end(), shape.family()) == families.end()) return;  // refused by the checks
  FamilyDefaults defaults = defaults_of(shape.family());
  bool llama = shape.family() == "llama";
  if (llama) write_llama_defaults(shape);
  if (shape.family() == "bert" && !shape.has_token_types()) shape.set_token_types(2);
  if (!shape.has_feed_forward() && shape.width() > 0 && shape.width() < (1 << 20)) {
    shape.set_feed_forward(llama ? round_up(8 * shape.width() / 3, 32) : 4 * shape.width());
  }
  if (!shape.has_positions()) shape.set_positions(defaults.positions);
  if (!shape.has_dropout()) shape.set_dropout(0);
  if (!shape.has_attention_dropout()) shape.set_attention_dropout(0);
  if (!shape.has_norm_epsilon()) shape.set_norm_epsilon(defaults.norm_epsilon);
  if (!shape.has_initializer_range()) shape.set_initializer_range(0.02);
  if (!shape.has_tied()) shape.set_tied(defaults.tied);
}

}  // namespace

const std::vector<std::string>& known_families() {
  static const std::vector<std::string> families = {"gpt2", "llama", "bert"};
  return families;
}

void resolve(Recipe& recipe) {
  recipe.clear_parent();
  recipe.mutable_data();
  recipe.mutable_batch();
  recipe.mutable_mesh();
  recipe.mutable_sharding();
  recipe.mutable_checkpoint();
  recipe.mutable_evaluate();
  recipe.mutable_numerics();
  const pb::Descriptor* constant = find_part("Constant");
  if (!recipe.has_schedule() && constant) pack_part(*new_part(*constant), *recipe.mutable_schedule());
  write_defaults(recipe);
  each_part(recipe, [](pb::Any& any) {
    std::unique_ptr<pb::Message> options = unpack_part(any);
    write_defaults(*options);
    pack_part(*options, any);
  });
  if (recipe.model().has_architecture()) write_family_defaults(*recipe.mutable_model()->mutable_architecture());
}

}  // namespace echelon
