#include "runtime/recipe/text.h"

#include <cstring>
#include <optional>
#include <regex>
#include <sstream>

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include "cluster/base/error.h"
#include "cluster/base/registry.h"
#include "cluster/base/text.h"
#include "cluster/base/utf8.h"
#include "runtime/recipe/fields.h"
#include "runtime/recipe/parts.h"
#include "runtime/recipe/texts.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

constexpr int64_t kLargestTextBytes = 4 << 20;
constexpr int kDeepestNesting = 64;
constexpr size_t kLongestMessage =
    1000;  // the parser repeats a word of the text, and a match takes stack for each byte

// Knows `[echelon/CausalLm]` as the message echelon.CausalLm.
class PartFinder : public pb::TextFormat::Finder {
 public:
  const pb::Descriptor* FindAnyType(const pb::Message&, const std::string&, const std::string& name) const override {
    return find_part(name);
  }
};

std::vector<std::string> field_names(const pb::Descriptor& message) {
  std::vector<std::string> names;
  for (int i = 0; i < message.field_count(); ++i) names.push_back(message.field(i)->name());
  return names;
}

std::vector<std::string> enum_names(const pb::EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  return names;
}

// The first mistake of a text, in our words.
class FirstError : public pb::io::ErrorCollector {
 public:
  FirstError(const std::string& text, const std::string& file, const pb::Descriptor& root)
      : text_(text), file_(file), root_(root) {}

  void AddError(int line, int column, const std::string& message) override {
    if (error_) return;
    column = start_of_word(line, column, message);
    std::string place = line < 0 ? file_ : fmt::format("{}:{}:{}", file_, line + 1, column + 1);
    error_ = Error::recipe(place, translate(message));
  }
  void AddWarning(int, int, const std::string&) override {}

  [[noreturn]] void raise() const { throw error_ ? *error_ : Error::recipe(file_, "cannot be parsed"); }

 private:
  std::string translate(const std::string& message) const {
    if (message.size() > kLongestMessage) return message.substr(0, kLongestMessage / 4) + "…";
    std::smatch match;
    static const std::regex no_field(R"re(Message type "([\w.]+)" has no field named "([^"]*)"\.?)re");
    static const std::regex no_part(
        R"re(Could not find type "(?:[^"]*/)?([^"/]*)" stored in google\.protobuf\.Any\.?)re");
    static const std::regex no_value(R"re(Unknown enumeration value of "([^"]*)" for field "([^"]*)"\.?)re");
    if (std::regex_match(message, match, no_field)) return no_such_field(match[1], match[2]);
    if (std::regex_match(message, match, no_part)) return unknown_part(match[1]);
    if (std::regex_match(message, match, no_value)) return no_such_value(match[1], match[2]);
    return message.ends_with('.') ? message.substr(0, message.size() - 1) : message;
  }

  // The parser reports an unknown word when it has read past it; people look for the word.
  int start_of_word(int line, int column, const std::string& message) const {
    static const std::regex unknown(
        R"re((?:Message type .* named|Could not find type|Unknown enumeration value of) "([^"]+)".*)re");
    std::smatch match;
    if (line < 0 || message.size() > kLongestMessage || !std::regex_match(message, match, unknown)) return column;
    std::string word = match[1];
    std::istringstream lines(text_);
    std::string text;
    for (int i = 0; i <= line; ++i) std::getline(lines, text);
    bool plain = text.find('\t') == std::string::npos && static_cast<size_t>(column) <= text.size();
    size_t found = plain ? text.substr(0, column).rfind(word) : std::string::npos;
    return found == std::string::npos ? column : static_cast<int>(found);
  }

  std::string no_such_field(const std::string& type, const std::string& name) const {
    const pb::Descriptor* message = pb::DescriptorPool::generated_pool()->FindMessageTypeByName(type);
    std::vector<std::string> names = message ? field_names(*message) : std::vector<std::string>();
    std::string near = did_you_mean(name, names);
    if (near.empty()) near = names.empty() ? "it has none" : fmt::format("it has {}", fmt::join(names, ", "));
    return fmt::format("no field \"{}\" in {}; {}", name, type.substr(type.rfind('.') + 1), near);
  }

  std::string no_such_value(const std::string& value, const std::string& name) const {
    std::vector<std::string> known;
    collect_values(root_, name, known);
    return fmt::format("\"{}\" is no value of {}; it takes {}", value, name, fmt::join(known, ", "));
  }

  static void collect_values(const pb::Descriptor& message, const std::string& name, std::vector<std::string>& known) {
    for (int i = 0; i < message.field_count(); ++i) {
      const pb::FieldDescriptor* field = message.field(i);
      if (field->message_type() && field->message_type()->file() == message.file()) {
        collect_values(*field->message_type(), name, known);
      } else if (field->enum_type() && field->name() == name) {
        known = enum_names(*field->enum_type());
      }
    }
    for (const Part& part : all_parts()) {
      const pb::FieldDescriptor* field = known.empty() ? part.options->FindFieldByName(name) : nullptr;
      if (field && field->enum_type()) known = enum_names(*field->enum_type());
    }
  }

  const std::string& text_;
  const std::string& file_;
  const pb::Descriptor& root_;
  std::optional<Error> error_;
};

struct Where {
  const std::string& file;
  const pb::TextFormat::ParseInfoTree* tree;
  std::string prefix;
};

// A Part's options are recorded in the tree of the Any that holds them.
void record_places(const pb::Message& message, const Where& where, Places& places) {
  if (message.GetDescriptor() == pb::Any::descriptor()) {
    record_places(*unpack_part(dynamic_cast<const pb::Any&>(message)), where, places);
    return;
  }
  const pb::Reflection* reflection = message.GetReflection();
  for (const pb::FieldDescriptor* field : fields_of(message)) {
    bool repeated = field->is_repeated();
    for (int i = 0; i < (repeated ? reflection->FieldSize(message, field) : 1); ++i) {
      std::string path = where.prefix + field->name() + (repeated ? fmt::format(".{}", i) : "");
      pb::TextFormat::ParseLocation at = where.tree->GetLocation(field, repeated ? i : -1);
      if (at.line >= 0) places.set(path, fmt::format("{}:{}:{}", where.file, at.line + 1, at.column + 1));
      const auto* tree = where.tree->GetTreeForNested(field, repeated ? i : -1);
      if (!is_message(*field) || !tree) continue;
      record_places(
          repeated ? reflection->GetRepeatedMessage(message, field, i) : reflection->GetMessage(message, field),
          {where.file, tree, path + "."}, places);
    }
  }
}

void parse(const std::string& text, const std::string& file, pb::Message& message,
           pb::TextFormat::ParseInfoTree* tree) {
  if (static_cast<int64_t>(text.size()) > kLargestTextBytes) {
    throw Error::recipe(file, "too long").got(human_bytes(text.size())).expected("at most 4 MiB");
  }
  if (!is_utf8(text)) throw Error::recipe(file, "is no UTF-8");
  FirstError first(text, file, *message.GetDescriptor());
  PartFinder finder;
  pb::TextFormat::Parser parser;
  parser.RecordErrorsTo(&first);
  parser.SetFinder(&finder);
  parser.SetRecursionLimit(kDeepestNesting);
  parser.WriteLocationsTo(tree);
  if (!parser.ParseFromString(text, &message)) first.raise();
  try {
    each_part(message, [](pb::Any&) {});  // the parser stored short names; readers look for the full ones
  } catch (Error& error) {
    throw error.within(file);
  }
  std::string broken = find_text(message, "", [](std::string_view each) { return !is_utf8(each); });  // by escapes
  if (!broken.empty()) throw Error::recipe(file, broken + " is no UTF-8");
}

}  // namespace

void Places::add(const Places& later) {
  for (const auto& [path, place] : later.places_) places_[path] = place;
}

std::string Places::of(std::string path) const {
  while (true) {
    auto found = places_.find(path);
    if (found != places_.end()) return found->second;
    size_t dot = path.rfind('.');
    if (dot == std::string::npos) return otherwise_;
    path.resize(dot);
  }
}

Recipe parse_recipe(const std::string& text, const std::string& file, Places* places) {
  Recipe recipe;
  pb::TextFormat::ParseInfoTree tree;
  parse(text, file, recipe, &tree);
  if (places) record_places(recipe, {file, &tree, ""}, *places);
  return recipe;
}

void parse_message(const std::string& text, const std::string& file, pb::Message& message) {
  pb::TextFormat::ParseInfoTree tree;
  parse(text, file, message, &tree);
}

std::string message_text(const pb::Message& message) {
  std::unique_ptr<pb::Message> copy(message.New());
  copy->CopyFrom(message);
  each_part(*copy, [](pb::Any& any) { any.set_type_url("echelon/" + part_name(any).substr(strlen("echelon."))); });
  PartFinder finder;
  pb::TextFormat::Printer printer;
  printer.SetExpandAny(true);
  printer.SetFinder(&finder);
  printer.SetUseUtf8StringEscaping(true);
  std::string text;
  printer.PrintToString(*copy, &text);
  return text;
}

std::string recipe_text(const Recipe& recipe) { return message_text(recipe); }

}  // namespace echelon
