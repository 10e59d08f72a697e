#include "comm/together.h"

#include <optional>

#include "cluster/base/error.h"
#include "comm/agree.h"

namespace echelon {

namespace {

// "0" and the result, or the error's kind, a line each of place and sentence.
std::string encode(const std::function<std::string()>& action, std::optional<Error>& error) {
  try {
    return "0\n" + action();
  } catch (const Error& thrown) {
    error = thrown;
    return fmt::format("{}\n{}", thrown.exit_code(), thrown.message());
  }
}

std::string decode(const std::string& text) {
  size_t line = text.find('\n');
  int kind = std::stoi(text.substr(0, line));
  if (kind == 0) return text.substr(line + 1);
  throw Error(static_cast<Error::Kind>(kind), "", text.substr(line + 1));
}

}  // namespace

std::string on_first_rank(const Group& world, const std::string& what, const std::function<std::string()>& action) {
  std::optional<Error> mine;
  std::string text = world.rank() == 0 ? encode(action, mine) : "";
  text = agree_text(world, text, 0, what);
  if (mine) throw *mine;
  return decode(text);
}

void on_every_rank(const Group& world, const std::string& what, const std::function<void()>& action) {
  std::optional<Error> mine;
  std::string text = encode([&] { action(); return std::string(); }, mine);
  int64_t failed = agree_max(world, mine ? static_cast<int64_t>(world.size() - world.rank()) : 0, what);
  if (failed == 0) return;
  text = agree_text(world, text, world.size() - static_cast<int>(failed), what);
  decode(text);
}

}  // namespace echelon
