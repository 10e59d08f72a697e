// Recipes as text: protobuf's text format with short Part names, positions of every field, and errors that point.
#pragma once

#include <map>
#include <string>

#include "runtime/recipe/recipe.pb.h"

namespace echelon {

/// Where each field of a recipe was written: "recipe.textproto:12:7", or the override that set it.
class Places {
 public:
  /// `otherwise` is the answer for fields that were written nowhere.
  explicit Places(std::string otherwise = "recipe") : otherwise_(std::move(otherwise)) {}

  void set(const std::string& path, std::string place) { places_[path] = std::move(place); }
  /// Takes over what `later` knows, its places before ours.
  void add(const Places& later);
  /// The place of a dotted path, or of the nearest field around it.
  std::string of(std::string path) const;

 private:
  std::string otherwise_;
  std::map<std::string, std::string> places_;
};

/// Parses protobuf text; nesting is limited to 64 levels and the text to 4 MiB. `file` stands in errors and places.
/// Errors: Error::recipe, its place the position of the first mistake; near names are suggested.
Recipe parse_recipe(const std::string& text, const std::string& file, Places* places = nullptr);

/// Parses text into any message of a recipe, as parse_recipe does; what stood in it is dropped.
void parse_message(const std::string& text, const std::string& file, google::protobuf::Message& message);

/// The recipe as text that parses back to itself; Parts are written by their short names.
std::string recipe_text(const Recipe& recipe);
/// The same for one message of a recipe.
std::string message_text(const google::protobuf::Message& message);

}  // namespace echelon
