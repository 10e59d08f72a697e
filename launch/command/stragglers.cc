#include "launch/command/stragglers.h"

#include <algorithm>

#include <fmt/format.h>

namespace echelon {

namespace {

constexpr double kWindowSeconds = 10, kSilentSeconds = 60;
constexpr double kShare = 0.2, kTimesTheNext = 4;
// Weights, gradients and activations travel in groups of the mesh; whoever writes a checkpoint or a log line is waited
// for in this one.
constexpr std::string_view kWorld = "world";

}  // namespace

std::map<Stragglers::Key, std::vector<Stragglers::Arrival>> Stragglers::arrivals_of(
    const std::vector<SeenRank>& ranks) const {
  std::map<Key, std::vector<Arrival>> arrivals;
  for (const SeenRank& seen : ranks) {
    for (const LedgerEntry& entry : seen.collectives) {
      auto counted = counted_.find(entry.group);
      bool is_new = counted == counted_.end() || entry.sequence > counted->second;
      bool pairwise = entry.op == "send" || entry.op == "recv";
      if (is_new && !pairwise && entry.group != kWorld)
        arrivals[{entry.group, entry.sequence}].push_back({entry.entered_seconds, seen.view.rank});
    }
  }
  std::erase_if(arrivals, [&](const auto& one) { return one.second.size() < ranks.size(); });
  return arrivals;
}

void Stragglers::count(const std::vector<SeenRank>& ranks) {
  double first = 0, last = 0;
  for (auto& [key, arrivals] : arrivals_of(ranks)) {
    std::sort(arrivals.begin(), arrivals.end(), [](const Arrival& a, const Arrival& b) { return a.at < b.at; });
    const Arrival& latest = arrivals.back();
    cost_[latest.rank].seconds += latest.at - arrivals[arrivals.size() - 2].at;
    first = first == 0 ? arrivals.front().at : std::min(first, arrivals.front().at);
    last = std::max(last, latest.at);
    counted_[key.first] = std::max(counted_[key.first], key.second);
  }
  seconds_ += last - first;
  for (const SeenRank& seen : ranks) {
    if (seen.view.inside) continue;
    ++cost_[seen.view.rank].looks_outside;
    cost_[seen.view.rank].looks_at_input += seen.view.progress.phase == Phase::input;
  }
}

std::optional<std::string> Stragglers::look(double now, const std::vector<SeenRank>& ranks) {
  if (ranks.size() < 2) return {};
  count(ranks);
  if (seconds_ < kWindowSeconds) return {};
  auto words = judge(now);
  cost_.clear();
  seconds_ = 0;
  return words;
}

std::optional<std::string> Stragglers::judge(double now) {
  auto costs_less = [](const auto& a, const auto& b) { return a.second.seconds < b.second.seconds; };
  auto worst = std::max_element(cost_.begin(), cost_.end(), costs_less);
  double next = 0;
  for (const auto& [rank, cost] : cost_) {
    if (rank != worst->first) next = std::max(next, cost.seconds);
  }
  double seconds = worst->second.seconds;
  bool straggles = seconds >= kShare * seconds_ && seconds >= kTimesTheNext * next;
  bool said = said_.first == worst->first && now - said_.second < kSilentSeconds;
  if (!straggles || said) return {};
  said_ = {worst->first, now};
  return fmt::format("rank {} holds up the others: they waited for it {:.0f} % of {:.0f} s{}", worst->first,
                     100 * seconds / seconds_, seconds_, worst->second.is_of_input() ? ", mostly at its input" : "");
}

}  // namespace echelon
