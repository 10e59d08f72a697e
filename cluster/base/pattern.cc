#include "cluster/base/pattern.h"

#include <algorithm>
#include <charconv>

namespace echelon {

namespace {

constexpr size_t kLongest = 1000;
// A state of the automaton is a few frames of the stack: counts copy what they repeat, and one may stand in another.
constexpr size_t kMostStates = 10'000;

// The grammar's own matcher takes time exponential in the text; this one, of the standard library, is linear.
constexpr auto kLinear = std::regex::ECMAScript | std::regex_constants::__polynomial;

/// At least the states that the counts of `text`, as in {2,30}, make of it.
size_t states_of(const std::string& text) {
  size_t states = std::max<size_t>(1, text.size());
  for (size_t at = text.find('{'); at != std::string::npos; at = text.find('{', at + 1)) {
    size_t most = 1;
    const char* end = text.data() + text.size();
    for (const char* from = text.data() + at; from != end && *from != '}'; ++from) {
      size_t count = 0;
      auto [stop, failure] = std::from_chars(from + 1, end, count);
      most = std::max(most, failure == std::errc::result_out_of_range ? kMostStates : count);
    }
    states *= std::min(most, kMostStates);
    if (states > kMostStates) return states;
  }
  return states;
}

std::regex compiled(const std::string& text, const std::string& place, Error::Kind kind) {
  if (text.size() > kLongest)
    throw Error(kind, place, "a pattern is too long").got(text.size()).expected(fmt::format("at most {}", kLongest));
  if (states_of(text) > kMostStates) throw Error(kind, place, fmt::format("\"{}\" repeats too much", text));
  try {
    return std::regex(text, kLinear);
  } catch (const std::regex_error& error) {
    throw Error(kind, place, fmt::format("\"{}\" is no regular expression: {}", text, error.what()));
  }
}

}  // namespace

Pattern::Pattern(const std::string& text, const std::string& place, Error::Kind kind)
    : text_(text), regex_(compiled(text, place, kind)) {}

}  // namespace echelon
