#include "runtime/recipe/overrides.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>
#include <sstream>

#include "cluster/base/error.h"
#include "cluster/base/text.h"
#include "cluster/base/utf8.h"
#include "runtime/recipe/fields.h"
#include "runtime/recipe/parts.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

struct Override {
  std::string text;                // "mesh.tp=2"
  std::string path;                // "mesh.tp"
  std::vector<std::string> steps;  // "mesh", "tp"
  std::string value;               // "2"
  bool append = false;
};

constexpr size_t kLongestPath = 1000;

/// Names between dots, the first of which is no number.
bool is_path(std::string_view path) {
  bool starts_well = path.size() <= kLongestPath && !std::isdigit(static_cast<unsigned char>(path.front()));
  bool is_whole = path.front() != '.' && path.back() != '.' && path.find("..") == std::string_view::npos;
  return starts_well && is_whole && std::all_of(path.begin(), path.end(), [](unsigned char c) {
           return c < 0x80 && (std::isalnum(c) || c == '_' || c == '.');
         });
}

/// Where the path of an override ends: at `=` or `+=`; nothing when it is none.
std::optional<size_t> end_of_path(const std::string& text) {
  size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) return {};
  size_t end = text[equals - 1] == '+' ? equals - 1 : equals;
  return end > 0 && is_path(std::string_view(text).substr(0, end)) ? std::optional(end) : std::nullopt;
}

Override split(const std::string& text) {
  std::optional<size_t> end = end_of_path(text);
  if (!end) throw Error::recipe(text, "no override").expected("path=value");
  bool append = text[*end] == '+';
  Override override{text, text.substr(0, *end), {}, text.substr(*end + (append ? 2 : 1)), append};
  std::istringstream stream(override.path);
  for (std::string step; std::getline(stream, step, '.');) override.steps.push_back(step);
  return override;
}

const pb::FieldDescriptor* find_field(const pb::Message& message, const Override& override, const std::string& name) {
  const pb::Descriptor* descriptor = message.GetDescriptor();
  if (const pb::FieldDescriptor* field = descriptor->FindFieldByName(name)) return field;
  std::vector<std::string> names;
  for (int i = 0; i < descriptor->field_count(); ++i) names.push_back(descriptor->field(i)->name());
  std::string near = did_you_mean(name, names);
  if (near.empty()) near = names.empty() ? "it has none" : fmt::format("it has {}", fmt::join(names, ", "));
  throw Error::recipe(override.text, fmt::format("no field \"{}\" in {}; {}", name, descriptor->name(), near));
}

template <class Number>
Number parse_number(const Override& override) {
  Number number{};
  const char* end = override.value.data() + override.value.size();
  auto [stop, failure] = std::from_chars(override.value.data(), end, number);
  if (failure != std::errc() || stop != end) {
    const char* kind = std::is_integral_v<Number> ? "a whole number" : "a number";
    throw Error::recipe(override.text, fmt::format("{} takes {}", override.path, kind))
        .got(fmt::format("\"{}\"", override.value));
  }
  return number;
}

bool parse_bool(const Override& override) {
  if (override.value == "true" || override.value == "1") return true;
  if (override.value == "false" || override.value == "0") return false;
  throw Error::recipe(override.text, fmt::format("{} takes true or false", override.path))
      .got(fmt::format("\"{}\"", override.value));
}

const pb::EnumValueDescriptor* parse_enum(const Override& override, const pb::EnumDescriptor& type) {
  if (const pb::EnumValueDescriptor* value = type.FindValueByName(override.value)) return value;
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  throw Error::recipe(override.text, fmt::format("{} takes {}", override.path, fmt::join(names, ", ")))
      .got(fmt::format("\"{}\"", override.value));
}

// `optimizer=Sgd` names a Part with its defaults; anything else is text of the message.
void parse_message_value(const Override& override, const pb::FieldDescriptor& field, pb::Message& message) {
  if (!is_part_slot(field)) return parse_message(override.value, override.text, message);
  if (override.value.starts_with('[')) return parse_message(override.value, override.text, message);
  const pb::Descriptor* part = find_part(override.value);
  if (!part) throw Error::recipe(override.text, unknown_part(override.value, kind_of_slot(field)));
  pack_part(*new_part(*part), dynamic_cast<pb::Any&>(message));
}

void set_scalar(pb::Message& message, const pb::FieldDescriptor* field, const Override& override) {
  const pb::Reflection* to = message.GetReflection();
  bool add = field->is_repeated();
  switch (field->cpp_type()) {
#define SET(Type, value) add ? to->Add##Type(&message, field, value) : to->Set##Type(&message, field, value)
    case pb::FieldDescriptor::CPPTYPE_INT32:
      return SET(Int32, parse_number<int32_t>(override));
    case pb::FieldDescriptor::CPPTYPE_INT64:
      return SET(Int64, parse_number<int64_t>(override));
    case pb::FieldDescriptor::CPPTYPE_UINT32:
      return SET(UInt32, parse_number<uint32_t>(override));
    case pb::FieldDescriptor::CPPTYPE_UINT64:
      return SET(UInt64, parse_number<uint64_t>(override));
    case pb::FieldDescriptor::CPPTYPE_DOUBLE:
      return SET(Double, parse_number<double>(override));
    case pb::FieldDescriptor::CPPTYPE_FLOAT:
      return SET(Float, parse_number<float>(override));
    case pb::FieldDescriptor::CPPTYPE_BOOL:
      return SET(Bool, parse_bool(override));
    case pb::FieldDescriptor::CPPTYPE_ENUM:
      return SET(Enum, parse_enum(override, *field->enum_type()));
    case pb::FieldDescriptor::CPPTYPE_STRING:
      if (!is_utf8(override.value)) throw Error::recipe(override.text, fmt::format("{} takes UTF-8", override.path));
      return SET(String, override.value);
    case pb::FieldDescriptor::CPPTYPE_MESSAGE:
      break;
#undef SET
  }
  parse_message_value(override, *field, add ? *to->AddMessage(&message, field) : *to->MutableMessage(&message, field));
}

int element_index(const pb::Message& message, const pb::FieldDescriptor* field, const Override& override, size_t step) {
  int size = message.GetReflection()->FieldSize(message, field);
  int index = -1;
  if (step < override.steps.size()) {
    const std::string& text = override.steps[step];
    auto [stop, failure] = std::from_chars(text.data(), text.data() + text.size(), index);
    if (failure != std::errc() || stop != text.data() + text.size()) index = -1;
  }
  if (index >= 0 && index < size) return index;
  throw Error::recipe(
      override.text,
      fmt::format("{} is a list of {}: name an element by its index from 0, or add one with +=", field->name(), size));
}

void set_field(pb::Message& message, const Override& override, size_t step);

void set_inside_part(pb::Any& any, const Override& override, size_t step) {
  if (any.type_url().empty()) {
    throw Error::recipe(override.text, fmt::format("{} holds no Part yet", override.steps[step - 1]))
        .remedy(fmt::format("name one first: {}=NAME", override.steps[step - 1]));
  }
  std::unique_ptr<pb::Message> options = unpack_part(any);
  set_field(*options, override, step);
  pack_part(*options, any);
}

void set_inside(pb::Message& message, const Override& override, size_t step) {
  if (auto* any = dynamic_cast<pb::Any*>(&message)) return set_inside_part(*any, override, step);
  set_field(message, override, step);
}

void set_element(pb::Message& message, const pb::FieldDescriptor* field, const Override& override, size_t step) {
  pb::Reflection const* reflection = message.GetReflection();
  int index = element_index(message, field, override, step);
  bool last = step + 1 == override.steps.size();
  if (is_message(*field)) {
    pb::Message& element = *reflection->MutableRepeatedMessage(&message, field, index);
    return last ? parse_message_value(override, *field, element) : set_inside(element, override, step + 1);
  }
  if (!last) throw Error::recipe(override.text, fmt::format("{} has no fields", field->name()));
  set_scalar(message, field, override);  // adds at the end; the new value then takes the old one's place
  reflection->SwapElements(&message, field, index, reflection->FieldSize(message, field) - 1);
  reflection->RemoveLast(&message, field);
}

void set_field(pb::Message& message, const Override& override, size_t step) {
  const pb::FieldDescriptor* field = find_field(message, override, override.steps[step]);
  bool last = step + 1 == override.steps.size();
  if (field->is_repeated() && !(last && override.append)) return set_element(message, field, override, step + 1);
  if (last && override.append && !field->is_repeated()) {
    throw Error::recipe(override.text, fmt::format("{} is not a list: set it with =", override.path));
  }
  if (last) return set_scalar(message, field, override);
  if (!is_message(*field)) {
    throw Error::recipe(override.text, fmt::format("{} has no fields", field->name()));
  }
  set_inside(*message.GetReflection()->MutableMessage(&message, field), override, step + 1);
}

}  // namespace

bool is_override(const std::string& argument) { return end_of_path(argument).has_value(); }

void apply_override(Recipe& recipe, const std::string& text, Places& places) {
  Override override = split(text);
  if (override.steps[0] == "parent")
    throw Error::recipe(text, "a parent cannot be set here").remedy("write it in a recipe");
  set_field(recipe, override, 0);
  places.set(override.path, text);
}

}  // namespace echelon
