// Writing JSON: numbers as Python writes them, so that files compare with those of the owner's libraries.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "cluster/base/json.h"

namespace echelon {

namespace {

/// Shortest digits that read back the same; fixed from 1e-4 up to 1e16, as Python's repr().
std::string shortest_float(double value) {
  char buffer[40];
  auto scientific = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  std::string text(buffer, scientific.ptr);
  int exponent = std::atoi(text.c_str() + text.find('e') + 1);
  if (exponent < -4 || exponent >= 16) return text;
  auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  text.assign(buffer, fixed.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

std::string seventeen_digits(double value) {
  std::string text = fmt::format("{:.17g}", value);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

class Dumper {
 public:
  explicit Dumper(const JsonStyle& style) : style_(style) {}

  std::string text;

  void dump(const Json& value, int level) {
    if (value.is_object()) {
      dump_object(value, level);
    } else if (value.is_array()) {
      dump_array(value, level);
    } else if (value.is_number_float()) {
      dump_float(value.get<double>());
    } else {
      text += dump_plain(value);
    }
  }

 private:
  void dump_object(const Json& value, int level) {
    std::vector<const Json::object_t::value_type*> members;
    for (const auto& member : value.get_ref<const Json::object_t&>()) members.push_back(&member);
    if (style_.sort_keys) {
      std::sort(members.begin(), members.end(), [](auto* a, auto* b) { return a->first < b->first; });
    }
    text += '{';
    for (size_t i = 0; i < members.size(); ++i) {
      start_item(i, level + 1);
      text += dump_plain(members[i]->first) + (style_.indent < 0 ? ":" : ": ");
      dump(members[i]->second, level + 1);
    }
    end_items(members.size(), level);
    text += '}';
  }

  void dump_array(const Json& value, int level) {
    text += '[';
    for (size_t i = 0; i < value.size(); ++i) {
      start_item(i, level + 1);
      dump(value[i], level + 1);
    }
    end_items(value.size(), level);
    text += ']';
  }

  void start_item(size_t index, int level) {
    if (index > 0) text += ',';
    new_line(level);
  }

  void end_items(size_t count, int level) {
    if (count > 0) new_line(level);
  }

  void new_line(int level) {
    if (style_.indent < 0) return;
    text += '\n';
    text.append(static_cast<size_t>(style_.indent) * level, ' ');
  }

  void dump_float(double value) {
    if (std::isfinite(value)) {
      text += style_.seventeen_digits ? seventeen_digits(value) : shortest_float(value);
    } else if (style_.non_finite_as_null) {
      text += "null";
    } else {
      throw Error::internal("JSON", "a number is not finite").got(value);
    }
  }

  static std::string dump_plain(const Json& value) {
    try {
      return value.dump();
    } catch (const nlohmann::detail::exception& mistake) {
      throw Error::internal("JSON", "text is not UTF-8");
    }
  }

  JsonStyle style_;
};

}  // namespace

std::string dump_json(const Json& value, const JsonStyle& style) {
  Dumper dumper(style);
  dumper.dump(value, 0);
  return std::move(dumper.text);
}

std::string dump_json(const Json& value, int indent) { return dump_json(value, JsonStyle{.indent = indent}); }

}  // namespace echelon
