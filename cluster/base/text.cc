#include "cluster/base/text.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace echelon {

namespace {

/// Damerau's edit distance, with neighbouring swaps counted once.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1])});
      bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before.swap(last);
    last.swap(row);
  }
  return last[b.size()];
}

struct Unit {
  double size;
  const char* name;
};

/// Three digits, as many of them behind the point as fit.
std::string three_digits(double value) {
  return fmt::format("{:.{}f}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0);
}

}  // namespace

std::vector<std::string> nearest(std::string_view word, const std::vector<std::string>& candidates, size_t count) {
  constexpr size_t longest = 256;  // A hostile name of megabytes must not cost a square of megabytes.
  if (word.size() > longest) return {};
  std::vector<std::pair<size_t, const std::string*>> near;
  for (const std::string& candidate : candidates) {
    size_t length = std::max(word.size(), candidate.size());
    size_t plausible = length <= 3 ? 1 : std::max<size_t>(2, length / 3);
    size_t least = length - std::min(word.size(), candidate.size());
    if (candidate.size() > longest || least > plausible) continue;
    size_t distance = edit_distance(word, candidate);
    if (distance <= plausible) near.emplace_back(distance, &candidate);
  }
  std::stable_sort(near.begin(), near.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (const auto& [distance, name] : near) {
    if (names.size() < count && distance <= near.front().first + 1) names.push_back(*name);
  }
  return names;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  std::string text;
  for (const std::string& name : nearest(word, candidates))
    text += fmt::format("{}\"{}\"", text.empty() ? "" : " or ", name);
  return text.empty() ? "" : "did you mean " + text + "?";
}

std::string human_bytes(int64_t bytes) {
  static constexpr Unit units[] = {
      {1ull << 50, "PiB"}, {1ull << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}};
  for (const Unit& unit : units) {
    if (std::abs(static_cast<double>(bytes)) >= unit.size)
      return fmt::format("{} {}", three_digits(bytes / unit.size), unit.name);
  }
  return fmt::format("{} B", bytes);
}

std::string human_count(double count) {
  static constexpr Unit units[] = {{1e12, "T"}, {1e9, "B"}, {1e6, "M"}, {1e3, "k"}};
  for (const Unit& unit : units) {
    if (std::abs(count) >= unit.size) return three_digits(count / unit.size) + unit.name;
  }
  return std::floor(count) == count ? fmt::format("{:.0f}", count) : three_digits(count);
}

std::string human_seconds(double seconds) {
  if (!std::isfinite(seconds)) return "?";
  if (seconds < 59.95) return fmt::format("{} s", three_digits(seconds));
  int64_t whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{}m{:02}s", whole / 60, whole % 60);
  if (whole < 86400) return fmt::format("{}h{:02}m", whole / 3600, whole / 60 % 60);
  return fmt::format("{}d{:02}h", whole / 86400, whole / 3600 % 24);
}

}  // namespace echelon
