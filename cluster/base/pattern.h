// Regular expressions that come from anywhere: recipes, adapters.
#pragma once

#include <regex>
#include <string>

#include "cluster/base/error.h"

namespace echelon {

/// A regular expression whose author can neither exhaust the stack nor the clock: matching takes time in proportion to
/// the text, so there are no back-references, and its size is limited. ECMAScript's grammar otherwise.
class Pattern {
 public:
  /// Errors: of `kind`, its place `place`: not a regular expression, longer than 1,000 bytes, too much repetition.
  Pattern(const std::string& text, const std::string& place, Error::Kind kind = Error::Kind::recipe);

  const std::string& text() const { return text_; }
  bool matches_whole(const std::string& name) const { return std::regex_match(name, regex_); }
  bool matches_in(const std::string& name) const { return std::regex_search(name, regex_); }

 private:
  std::string text_;
  std::regex regex_;
};

}  // namespace echelon
