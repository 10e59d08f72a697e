#include "runtime/recipe/ranges.h"

#include <cmath>
#include <limits>
#include <map>

#include <fmt/format.h>

#include "runtime/recipe/fields.h"
#include "runtime/recipe/parts.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Range {
  double min = -kInfinity, max = kInfinity;
  bool min_open = false, max_open = false;

  bool holds(double value) const {
    if (!std::isfinite(value)) return false;
    return (min_open ? value > min : value >= min) && (max_open ? value < max : value <= max);
  }
  std::string words() const {
    if (min == -kInfinity) return "finite";
    if (max == kInfinity) return fmt::format("{} {}", min_open ? "above" : "at least", min);
    return fmt::format("in {}{}, {}{}", min_open ? '(' : '[', min, max, max_open ? ')' : ']');
  }
};

constexpr Range at_least(double min) { return {.min = min}; }
constexpr Range above(double min) { return {.min = min, .min_open = true}; }
constexpr Range from_to(double min, double max) { return {.min = min, .max = max}; }
constexpr Range below_one() { return {.min = 0, .max = 1, .max_open = true}; }

// "Message.field" first, then the field's name in any message: Parts that share a word share its range.
const std::map<std::string, Range>& ranges() {
  static const std::map<std::string, Range> ranges = {
      {"steps", at_least(1)},
      {"clip_norm", at_least(0)},
      {"every", at_least(0)},
      {"batches", at_least(0)},
      {"skip", at_least(0)},
      {"compare_every", at_least(0)},
      {"roll_back", at_least(0)},
      {"guard_share", from_to(0, 1)},
      {"keep", at_least(2)},
      {"scrub_minutes", from_to(0, 1 << 20)},
      {"global", from_to(1, 1 << 24)},
      {"micro", from_to(0, 1 << 24)},
      {"dp", from_to(0, 1 << 16)},
      {"tp", from_to(1, 1 << 16)},
      {"replicas", from_to(1, 1 << 16)},
      {"zero", from_to(0, 3)},
      // Shapes far beyond anything trained yet: a slip of the finger is refused before memory is planned.
      {"layers", from_to(1, 10000)},
      {"width", from_to(1, 1 << 20)},
      {"heads", from_to(1, 1 << 16)},
      {"kv_heads", from_to(1, 1 << 16)},
      {"head_width", from_to(1, 1 << 16)},
      {"feed_forward", from_to(1, 1 << 24)},
      {"vocabulary", from_to(1, 1 << 24)},
      {"positions", from_to(1, 1 << 24)},
      {"token_types", from_to(1, 1 << 16)},
      {"dropout", below_one()},
      {"attention_dropout", below_one()},
      {"norm_epsilon", above(0)},
      {"initializer_range", at_least(0)},
      {"rope_theta", above(0)},
      {"learning_rate", at_least(0)},
      {"learning_rate_factor", at_least(0)},
      {"beta1", below_one()},
      {"beta2", below_one()},
      {"epsilon", above(0)},
      {"weight_decay", at_least(0)},
      {"momentum", below_one()},
      {"warmup_steps", at_least(0)},
      {"WarmupInverseSqrt.warmup_steps", at_least(1)},
      {"OneBitAdam.warmup_steps", at_least(1)},
      {"final_fraction", from_to(0, 1)},
      {"decay_fraction", from_to(0, 1)},
      {"power", above(0)},
      {"mask_rate", {.min = 0, .max = 1, .min_open = true}},
      {"mask_token_rate", from_to(0, 1)},
      {"random_token_rate", from_to(0, 1)},
      {"mask_token_id", at_least(0)},
      {"special_token_id", at_least(0)},
      {"sequence_length", from_to(1, 1 << 24)},
      {"inner_steps", at_least(1)},
      {"outer_learning_rate", above(0)},
      {"outer_momentum", below_one()},
      {"synchronous_steps", at_least(0)},
      {"PowerSgd.rank", from_to(1, 1 << 16)},
      {"PowerSgd.minimum_saving", at_least(0)},
      {"Int8.block", from_to(1, 1 << 24)},
      {"Sign.block", from_to(8, 1 << 24)},
      {"OneBitAdam.block", from_to(8, 1 << 24)},
      {"TopK.fraction", {.min = 0, .max = 1, .min_open = true}},
      {"TopK.count", at_least(1)},
  };
  return ranges;
}

const Range* find_range(const pb::FieldDescriptor& field) {
  auto found = ranges().find(field.containing_type()->name() + "." + field.name());
  if (found == ranges().end()) found = ranges().find(field.name());
  return found == ranges().end() ? nullptr : &found->second;
}

using Refuse = std::function<void(const std::string& path, const std::string& what)>;

// Numbers of one field; text and flags have no range.
std::vector<double> numbers(const pb::Message& message, const pb::FieldDescriptor* field) {
  const pb::Reflection* of = message.GetReflection();
  std::vector<double> values;
  for (int i = 0; field->is_repeated() && i < of->FieldSize(message, field); ++i) {
    if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_INT64) {
      values.push_back(static_cast<double>(of->GetRepeatedInt64(message, field, i)));
    } else if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_DOUBLE) {
      values.push_back(of->GetRepeatedDouble(message, field, i));
    }
  }
  if (field->is_repeated()) return values;
  switch (field->cpp_type()) {
    case pb::FieldDescriptor::CPPTYPE_INT32:
      return {static_cast<double>(of->GetInt32(message, field))};
    case pb::FieldDescriptor::CPPTYPE_INT64:
      return {static_cast<double>(of->GetInt64(message, field))};
    case pb::FieldDescriptor::CPPTYPE_DOUBLE:
      return {of->GetDouble(message, field)};
    default:
      return {};
  }
}

void check_field(const pb::Message& message, const pb::FieldDescriptor* field, const std::string& path,
                 const Refuse& refuse) {
  const Range* range = find_range(*field);
  if (!range) return;
  for (double value : numbers(message, field)) {
    if (!range->holds(value)) refuse(path, fmt::format("{} is {}, expected {}", path, value, range->words()));
  }
}

void check_inside(const pb::Message& message, const std::string& prefix, const Refuse& refuse) {
  if (const auto* any = dynamic_cast<const pb::Any*>(&message)) {
    if (!any->type_url().empty()) check_inside(*unpack_part(*any), prefix, refuse);
    return;
  }
  const pb::Reflection* reflection = message.GetReflection();
  for (const pb::FieldDescriptor* field : fields_of(message)) {
    std::string path = prefix + field->name();
    if (!is_message(*field)) {
      check_field(message, field, path, refuse);
    } else if (!field->is_repeated()) {
      check_inside(reflection->GetMessage(message, field), path + ".", refuse);
    } else {
      for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
        check_inside(reflection->GetRepeatedMessage(message, field, i), fmt::format("{}.{}.", path, i), refuse);
      }
    }
  }
}

}  // namespace

void check_ranges(const pb::Message& message, const Refuse& refuse) { check_inside(message, "", refuse); }

std::string range_of(const pb::FieldDescriptor& field) {
  const Range* range = find_range(field);
  return range ? range->words() : "";
}

}  // namespace echelon
