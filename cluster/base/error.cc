#include "cluster/base/error.h"

#include <algorithm>
#include <cstdint>

#include "cluster/base/secret.h"
#include "cluster/base/utf8.h"

namespace echelon {

std::string_view name_of(Error::Kind kind) {
  switch (kind) {
    case Error::Kind::internal: return "internal";
    case Error::Kind::usage: return "usage";
    case Error::Kind::recipe: return "recipe";
    case Error::Kind::input: return "input";
    case Error::Kind::storage: return "storage";
    case Error::Kind::comm: return "comm";
    case Error::Kind::numerics: return "numerics";
    case Error::Kind::memory: return "memory";
    case Error::Kind::stopped: return "stopped";
  }
  return "internal";
}

namespace {

constexpr size_t kLongestPart = 2000;  // of a sentence: a hostile file's words may be as long as the file

bool is_shown(uint32_t code) {
  bool is_control = code < 0x20 || (code >= 0x7f && code < 0xa0);
  bool is_separator = code == 0x2028 || code == 0x2029;
  bool is_direction = code == 0x061c || code == 0x200e || code == 0x200f || (code >= 0x202a && code <= 0x202e) ||
                      (code >= 0x2066 && code <= 0x2069);
  return !is_control && !is_separator && !is_direction;
}

std::string shortened(const std::string& text) {
  if (text.size() <= kLongestPart) return text;
  size_t end = kLongestPart;
  while (end > kLongestPart - 4 && (text[end] & 0xc0) == 0x80) --end;
  return text.substr(0, end) + "…";
}

}  // namespace

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    uint32_t code = 0;
    size_t length = utf8_length(text, code), taken = std::max<size_t>(1, length);
    if (length > 0 && is_shown(code)) {
      out += text.substr(0, length);
    } else {
      for (char c : text.substr(0, taken)) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
    text.remove_prefix(taken);
  }
  return out;
}

Error::Error(Kind kind, std::string place, std::string what)
    : kind_(kind), place_(std::move(place)), what_(std::move(what)) {
  compose();
}

Error Error::shape(std::string_view operation, std::string_view tensor) {
  return internal(fmt::format("{} \"{}\"", operation, tensor), "wrong tensor");
}

Error& Error::set_got(std::string text) {
  got_ = std::move(text);
  compose();
  return *this;
}

Error& Error::set_expected(std::string text) {
  expected_ = std::move(text);
  compose();
  return *this;
}

Error& Error::remedy(std::string text) {
  remedy_ = std::move(text);
  compose();
  return *this;
}

Error& Error::within(std::string_view outer_place) {
  place_ = place_.empty() ? std::string(outer_place) : fmt::format("{}: {}", outer_place, place_);
  compose();
  return *this;
}

std::string Error::message() const { return sentence_.substr(name_of(kind_).size() + 2); }

void Error::compose() {
  std::string text = fmt::format("{}: ", name_of(kind_));
  if (!place_.empty()) text += shortened(place_) + ": ";
  text += shortened(what_);
  if (!got_.empty()) text += ": got " + shortened(got_);
  if (!expected_.empty()) text += ", expected " + shortened(expected_);
  if (!remedy_.empty()) text += "; " + remedy_;
  sentence_ = printable(redacted(text));
}

}  // namespace echelon
