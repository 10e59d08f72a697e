#include "cluster/base/json.h"

#include <algorithm>
#include <limits>

namespace echelon {

std::string json_mistake(const nlohmann::detail::exception& mistake) {
  constexpr size_t longest = 240;  // The parser repeats what it last read, which may be the whole file.
  std::string text = mistake.what();
  size_t prefix = text.find("] ");
  if (prefix != std::string::npos) text.erase(0, prefix + 2);
  if (text.size() > longest) text = text.substr(0, longest) + "…";
  return "not valid JSON: " + text;
}

namespace {

/// Builds the value; the library's own builder keeps the last of two equal keys without a word.
class StrictBuilder {
 public:
  StrictBuilder(const std::string& place, Error::Kind kind, int max_depth)
      : place_(place), kind_(kind), max_depth_(max_depth) {}

  Json take() { return std::move(root_); }

  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(int64_t value) { return add(value); }
  bool number_unsigned(uint64_t value) { return add(value); }
  bool number_float(double value, const std::string&) { return add(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_array() { return close(); }
  bool key(std::string& key) {
    key_ = std::move(key);
    return true;
  }
  bool end_object() {
    refuse_duplicates(*open_.back());
    return close();
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& mistake) {
    throw damaged(json_mistake(mistake));
  }
  Error damaged(const std::string& what) const { return Error(kind_, place_, what); }

 private:
  bool add(Json value) {
    place_value(std::move(value));
    return true;
  }

  bool open(Json value) {
    if (open_.size() >= static_cast<size_t>(max_depth_)) {
      throw damaged(fmt::format("JSON is nested deeper than {} levels", max_depth_));
    }
    open_.push_back(place_value(std::move(value)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  /// Appends without a search: looking a key up among n costs n here, and a file may hold a million.
  Json* place_value(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    Json::object_t::Container& members = parent.get_ref<Json::object_t&>();
    members.emplace_back(std::move(key_), std::move(value));
    return &members.back().second;
  }

  void refuse_duplicates(const Json& object) {
    std::vector<std::string_view> keys;
    for (const auto& [key, value] : object.get_ref<const Json::object_t&>()) keys.push_back(key);
    std::sort(keys.begin(), keys.end());
    auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) throw damaged(fmt::format("key \"{}\" stands twice in one object", *twice));
  }

  const std::string& place_;
  Error::Kind kind_;
  int max_depth_;
  Json root_;
  std::vector<Json*> open_;
  std::string key_;
};

std::string member_place(const std::string& place, const std::string& key) {
  return place.empty() ? key : fmt::format("{}: {}", place, key);
}

/// The member, or null when it is missing.
const Json* member(const Json& object, const std::string& key, const std::string& place, Error::Kind kind) {
  if (!object.is_object()) throw Error(kind, place, "not a JSON object").got(object.type_name());
  auto found = object.find(key);
  return found == object.end() ? nullptr : &*found;
}

const Json& required(const Json& object, const std::string& key, const std::string& place, Error::Kind kind) {
  const Json* found = member(object, key, place, kind);
  if (!found) throw Error(kind, place, fmt::format("\"{}\" is missing", key));
  return *found;
}

bool is_absent(const Json& object, const std::string& key, const std::string& place, Error::Kind kind) {
  const Json* found = member(object, key, place, kind);
  return !found || found->is_null();
}

std::string shown(const Json& value) {
  if (value.is_structured()) return value.type_name();
  std::string text = dump_json(value, {.non_finite_as_null = true});
  return text.size() > 80 ? text.substr(0, 80) + "…" : text;
}

Error wrong_type(const Json& value, const std::string& key, const std::string& place, Error::Kind kind,
                 std::string_view expected) {
  return Error(kind, member_place(place, key), "wrong type").got(shown(value)).expected(expected);
}

template <class T>
void check_range(T value, T min, T max, const std::string& key, const std::string& place, Error::Kind kind) {
  if (value >= min && value <= max) return;
  throw Error(kind, member_place(place, key), "out of range").got(value).expected(fmt::format("{} to {}", min, max));
}

}  // namespace

Json parse_json(std::string_view text, const std::string& place, Error::Kind kind, int max_depth) {
  StrictBuilder builder(place, kind, max_depth);
  parse_json_events(text, builder);
  return builder.take();
}

int64_t json_integer(const Json& object, const std::string& key, const std::string& place, int64_t min, int64_t max,
                     Error::Kind kind) {
  const Json& value = required(object, key, place, kind);
  if (!value.is_number_integer()) throw wrong_type(value, key, place, kind, "an integer");
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    throw Error(kind, member_place(place, key), "out of range")
        .got(shown(value))
        .expected(fmt::format("{} to {}", min, max));
  }
  check_range<int64_t>(value.get<int64_t>(), min, max, key, place, kind);
  return value.get<int64_t>();
}

int64_t json_integer(const Json& object, const std::string& key, const std::string& place, int64_t min, int64_t max,
                     int64_t otherwise, Error::Kind kind) {
  return is_absent(object, key, place, kind) ? otherwise : json_integer(object, key, place, min, max, kind);
}

double json_number(const Json& object, const std::string& key, const std::string& place, double min, double max,
                   Error::Kind kind) {
  const Json& value = required(object, key, place, kind);
  if (!value.is_number()) throw wrong_type(value, key, place, kind, "a number");
  check_range<double>(value.get<double>(), min, max, key, place, kind);
  return value.get<double>();
}

double json_number(const Json& object, const std::string& key, const std::string& place, double min, double max,
                   double otherwise, Error::Kind kind) {
  return is_absent(object, key, place, kind) ? otherwise : json_number(object, key, place, min, max, kind);
}

std::string json_string(const Json& object, const std::string& key, const std::string& place, Error::Kind kind) {
  const Json& value = required(object, key, place, kind);
  if (!value.is_string()) throw wrong_type(value, key, place, kind, "a string");
  return value.get<std::string>();
}

std::string json_string(const Json& object, const std::string& key, const std::string& place,
                        const std::string& otherwise, Error::Kind kind) {
  return is_absent(object, key, place, kind) ? otherwise : json_string(object, key, place, kind);
}

bool json_bool(const Json& object, const std::string& key, const std::string& place, Error::Kind kind) {
  const Json& value = required(object, key, place, kind);
  if (!value.is_boolean()) throw wrong_type(value, key, place, kind, "true or false");
  return value.get<bool>();
}

bool json_bool(const Json& object, const std::string& key, const std::string& place, bool otherwise, Error::Kind kind) {
  return is_absent(object, key, place, kind) ? otherwise : json_bool(object, key, place, kind);
}

}  // namespace echelon
