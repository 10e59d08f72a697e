#include "cluster/base/error.h"

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

std::string printable(std::string_view text) {
  std::string out;
  for (unsigned char c : text) {
    if (c < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", c);
    } else {
      out += static_cast<char>(c);
    }
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
  if (!place_.empty()) text += place_ + ": ";
  text += what_;
  if (!got_.empty()) text += ": got " + got_;
  if (!expected_.empty()) text += ", expected " + expected_;
  if (!remedy_.empty()) text += "; " + remedy_;
  sentence_ = printable(text);
}

}  // namespace echelon
