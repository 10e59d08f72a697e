#include "launch/command/describe.h"

#include <sstream>

#include <google/protobuf/descriptor.pb.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "cluster/base/json.h"
#include "cluster/base/text.h"
#include "runtime/recipe/parts.h"
#include "runtime/recipe/ranges.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

// Comments are not part of the programs; the build writes the protos with them into share/echelon/parts.pb.
class Described {
 public:
  explicit Described(const Installation& installation) {
    std::string path = join_path(installation.share, "parts.pb");
    pb::FileDescriptorSet files;
    if (!files.ParseFromString(read_file(path, Error::Kind::recipe, 64 << 20))) throw Error::recipe(path, "damaged");
    pb::FileDescriptorProto any;
    pb::Any::descriptor()->file()->CopyTo(&any);
    pool_.BuildFile(any);
    for (const pb::FileDescriptorProto& file : files.file()) pool_.BuildFile(file);
  }
  const pb::Descriptor* find(const std::string& name) const { return pool_.FindMessageTypeByName("echelon." + name); }

 private:
  pb::DescriptorPool pool_;
};

std::string one_line(const std::string& text) {
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word;) line += (line.empty() ? "" : " ") + word;
  return line;
}

template <class Thing>
std::string comment_of(const Thing& thing) {
  pb::SourceLocation location;
  if (!thing.GetSourceLocation(&location)) return "";
  return one_line(location.leading_comments.empty() ? location.trailing_comments : location.leading_comments);
}

std::string wrapped(const std::string& text, size_t width) {
  std::istringstream words(text);
  std::string lines, line;
  for (std::string word; words >> word;) {
    if (!line.empty() && line.size() + 1 + word.size() > width) {
      lines += "  " + line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return line.empty() ? lines : lines + "  " + line + "\n";
}

std::string type_of(const pb::FieldDescriptor& field) {
  std::string type = field.cpp_type_name();
  if (field.enum_type()) {
    type = "";
    for (int i = 0; i < field.enum_type()->value_count(); ++i)
      type += (i ? " | " : "") + field.enum_type()->value(i)->name();
  }
  if (field.message_type()) type = field.message_type()->name() == "Any" ? "Part" : field.message_type()->name();
  return field.is_repeated() ? "list of " + type : type;
}

std::string default_of(const pb::FieldDescriptor& field) {
  if (!field.has_default_value()) return "";
  switch (field.cpp_type()) {
    case pb::FieldDescriptor::CPPTYPE_INT32:
      return std::to_string(field.default_value_int32());
    case pb::FieldDescriptor::CPPTYPE_INT64:
      return std::to_string(field.default_value_int64());
    case pb::FieldDescriptor::CPPTYPE_DOUBLE:
      return fmt::format("{}", field.default_value_double());
    case pb::FieldDescriptor::CPPTYPE_BOOL:
      return field.default_value_bool() ? "true" : "false";
    case pb::FieldDescriptor::CPPTYPE_ENUM:
      return field.default_value_enum()->name();
    case pb::FieldDescriptor::CPPTYPE_STRING:
      return fmt::format("\"{}\"", field.default_value_string());
    default:
      return "";
  }
}

std::string describe_field(const pb::FieldDescriptor& field) {
  std::string facts = type_of(field), otherwise = default_of(field), range = range_of(field);
  if (!otherwise.empty()) facts += ", default " + otherwise;
  if (!range.empty()) facts += ", " + range;
  return fmt::format("  {:<22} {}\n{:25}{}\n", field.name(), comment_of(field), "", facts);
}

std::string describe_message(const pb::Descriptor& message) {
  std::string text = wrapped(comment_of(message), 100);
  if (message.field_count() == 0) return text + "\n  It has no options.\n";
  text += "\n";
  for (int i = 0; i < message.field_count(); ++i) text += describe_field(*message.field(i));
  return text;
}

std::string describe_all(const Described& described) {
  std::string text, kind;
  for (const Part& part : all_parts()) {
    if (kind != part.kind.word) text += fmt::format("{}{}\n", text.empty() ? "" : "\n", kind = part.kind.word);
    const pb::Descriptor* message = described.find(part.name);
    std::string comment = message ? comment_of(*message) : "";
    text += fmt::format("  {:<20} {}\n", part.name, comment.substr(0, comment.find_first_of(".:")));
  }
  return text +
         "\n`echelon describe NAME` shows one with its options; `echelon describe Recipe` the fields around them.\n";
}

// "mesh" is the message of that field.
const pb::Descriptor* find_group(const Described& described, const std::string& name) {
  const pb::Descriptor* recipe = described.find("Recipe");
  if (name == "Recipe") return recipe;
  const pb::FieldDescriptor* field = recipe->FindFieldByName(name);
  if (field && field->message_type() && field->message_type()->name() != "Any") return field->message_type();
  const pb::Descriptor* message = described.find(name);
  return message && message->file() == recipe->file() ? message : nullptr;
}

std::string description_of(const std::string& recipe_name, const Installation& installation) {
  try {
    return load_recipe(recipe_name, {}, installation.recipes).description();
  } catch (const Error& error) {
    return fmt::format("[{}]", error.what());
  }
}

std::string describe_recipe(const std::string& name, const Installation& installation) {
  LoadedRecipe loaded = read_recipe(name, {}, installation.recipes);
  std::string head = loaded.recipe.description();
  return fmt::format("{}\n{}\nresolved:\n{}", loaded.file, wrapped(head, 100), recipe_text(loaded.recipe));
}

[[noreturn]] void refuse(const std::string& name, const Installation& installation) {
  std::vector<std::string> names = part_names(), recipes = recipe_names(installation.recipes);
  names.insert(names.end(), recipes.begin(), recipes.end());
  std::string near = did_you_mean(name, names);
  throw Error::usage(printable(name), "no Part and no recipe of that name")
      .remedy(near.empty() ? "`echelon describe` lists the Parts" : near);
}

}  // namespace

std::string list_recipes(const Installation& installation, bool json) {
  Json object = Json::object();
  std::string text;
  for (const std::string& name : recipe_names(installation.recipes)) {
    std::string description = description_of(name, installation);
    object[name] = description;
    text += fmt::format("  {:<26} {}\n", name, description);
  }
  return json ? dump_json(object) + "\n" : text;
}

std::string describe(const std::string& name, const Installation& installation) {
  Described described(installation);
  if (name.empty()) return describe_all(described);
  if (const pb::Descriptor* part = find_part(name)) {
    const pb::Descriptor* message = described.find(part->name());
    return fmt::format("{} ({})\n{}", part->name(), kind_of(*part), describe_message(message ? *message : *part));
  }
  if (const pb::Descriptor* group = find_group(described, name))
    return fmt::format("{}\n{}", name, describe_message(*group));
  std::vector<std::string> recipes = recipe_names(installation.recipes);
  bool is_recipe = std::find(recipes.begin(), recipes.end(), name) != recipes.end() || exists(name);
  if (!is_recipe) refuse(name, installation);
  return describe_recipe(name, installation);
}

}  // namespace echelon
