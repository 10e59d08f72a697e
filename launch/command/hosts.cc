#include "launch/command/hosts.h"

#include <charconv>
#include <regex>
#include <sstream>

#include "cluster/base/error.h"
#include "cluster/base/files.h"

namespace echelon {

namespace {

constexpr size_t kMostHosts = 65536;

// A name that starts with a hyphen would be an option of the program that connects to it.
Host make_host(const std::string& name, const std::string& slots, const std::string& place) {
  static const std::regex allowed("[A-Za-z0-9][A-Za-z0-9.-]{0,252}");
  if (!std::regex_match(name, allowed)) {
    throw Error::usage(place, fmt::format("\"{}\" is no host name", printable(name)))
        .expected("letters, digits, dots and hyphens");
  }
  int count = 0;
  auto [stop, failure] = std::from_chars(slots.data(), slots.data() + slots.size(), count);
  if (failure != std::errc() || stop != slots.data() + slots.size() || count < 1 || count > 65536) {
    throw Error::usage(place, fmt::format("\"{}\" is no number of ranks for {}", printable(slots), name))
        .expected("1 to 65536");
  }
  return {name, count};
}

void add(std::vector<Host>& hosts, Host host, const std::string& place) {
  if (hosts.size() >= kMostHosts) throw Error::usage(place, "more than 65536 hosts");
  hosts.push_back(std::move(host));
}

}  // namespace

std::vector<Host> parse_hosts(const std::string& text) {
  std::vector<Host> hosts;
  std::istringstream stream(text);
  for (std::string entry; std::getline(stream, entry, ',');) {
    size_t colon = entry.find(':');
    add(hosts, make_host(entry.substr(0, colon), colon == std::string::npos ? "1" : entry.substr(colon + 1), "--hosts"),
        "--hosts");
  }
  return hosts;
}

std::vector<Host> read_hostfile(const std::string& path) {
  static const std::regex shape(R"(\s*(\S+)(?:\s+slots=(\S+))?\s*)");
  std::vector<Host> hosts;
  std::istringstream stream(read_file(path, Error::Kind::usage, 16 << 20));
  int number = 0;
  for (std::string line; std::getline(stream, line);) {
    std::string place = fmt::format("{}:{}", path, ++number);
    line = line.substr(0, line.find('#'));
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    std::smatch match;
    if (line.size() > 1000 || !std::regex_match(line, match, shape)) {
      throw Error::usage(place, "not a line of a hostfile").expected("HOST slots=N");
    }
    add(hosts, make_host(match[1], match[2].matched ? match[2].str() : "1", place), place);
  }
  if (hosts.empty()) throw Error::usage(path, "no host in it");
  return hosts;
}

std::string hosts_text(const std::vector<Host>& hosts) {
  std::vector<std::string> entries;
  for (const Host& host : hosts) entries.push_back(fmt::format("{}:{}", host.name, host.slots));
  return fmt::format("{}", fmt::join(entries, ","));
}

int all_slots(const std::vector<Host>& hosts) {
  int64_t slots = 0;
  for (const Host& host : hosts) slots += host.slots;
  return static_cast<int>(std::min<int64_t>(slots, 1 << 30));
}

}  // namespace echelon
