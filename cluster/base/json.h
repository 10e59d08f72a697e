// JSON that comes from anywhere: strict parsing, typed reading with errors that name the place, exact numbers out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "cluster/base/error.h"

namespace echelon {

/// Keeps the order of keys.
using Json = nlohmann::ordered_json;

/// Parses one JSON value. Strict: UTF-8, no key twice in an object, no deeper than `max_depth`, nothing after the
/// value. `place` (a file's name) stands in errors. Errors: of `kind`, with the position of the first mistake.
Json parse_json(std::string_view text, const std::string& place, Error::Kind kind = Error::Kind::input,
                int max_depth = 64);

/// What the parser found wrong, without its own prefix and cut to a line's length.
std::string json_mistake(const nlohmann::detail::exception& mistake);

/// Runs the parser over `text`; its events go to `handler`, and mistakes become `handler.damaged(what)`, an Error.
template <class Handler>
void parse_json_events(std::string_view text, Handler& handler) {
  // The parser takes a zero byte for the end of its input and would not see what follows.
  if (text.find('\0') != std::string_view::npos) throw handler.damaged("not valid JSON: a zero byte");
  Json::sax_parse(text.begin(), text.end(), &handler);
}

struct JsonStyle {
  int indent = -1;  ///< spaces per level; -1: everything on one line, no spaces
  bool sort_keys = false;
  bool seventeen_digits = false;    ///< floats as %.17g instead of the shortest text that reads back the same
  bool non_finite_as_null = false;  ///< otherwise NaN and infinity are an internal error: JSON has neither
};

/// Writes `value`. A float stays a float: 0.0, 10000.0, 1e-05 (as Python writes them). Text that is not UTF-8 is
/// refused.
std::string dump_json(const Json& value, const JsonStyle& style);
std::string dump_json(const Json& value, int indent = -1);

/// Typed members of an object. `place` stands in errors before the key.
/// Errors: of `kind`, when the key is missing, of another type, or out of [min, max]. A float is no integer, not even
/// 3.0; an integer is a number. With `otherwise`, a missing or null member gives that instead.
int64_t json_integer(const Json& object, const std::string& key, const std::string& place, int64_t min, int64_t max,
                     Error::Kind kind = Error::Kind::input);
int64_t json_integer(const Json& object, const std::string& key, const std::string& place, int64_t min, int64_t max,
                     int64_t otherwise, Error::Kind kind = Error::Kind::input);
double json_number(const Json& object, const std::string& key, const std::string& place, double min, double max,
                   Error::Kind kind = Error::Kind::input);
double json_number(const Json& object, const std::string& key, const std::string& place, double min, double max,
                   double otherwise, Error::Kind kind = Error::Kind::input);
std::string json_string(const Json& object, const std::string& key, const std::string& place,
                        Error::Kind kind = Error::Kind::input);
std::string json_string(const Json& object, const std::string& key, const std::string& place,
                        const std::string& otherwise, Error::Kind kind = Error::Kind::input);
bool json_bool(const Json& object, const std::string& key, const std::string& place,
               Error::Kind kind = Error::Kind::input);
bool json_bool(const Json& object, const std::string& key, const std::string& place, bool otherwise,
               Error::Kind kind = Error::Kind::input);

}  // namespace echelon
