#include "launch/command/liveness.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace echelon {

namespace {

constexpr double kStoppedSeconds = 6;
constexpr double kSilentSeconds = 4.5;
constexpr double kLeastSeconds = 9, kTimesSlower = 5;
constexpr double kPhaseSeconds = 600;           // as long as a collective waits
constexpr double kStartOrFinishSeconds = 1800;  // large models are read and written without a word
constexpr size_t kFewestSteps = 3, kMostSteps = 200;
constexpr int64_t kWarmUpSteps = 2;
// Looks further apart than this: we were stopped or starved ourselves, and have seen nothing.
constexpr double kBlindSeconds = 3;

bool is_step(Phase phase) { return phase == Phase::input || phase == Phase::compute || phase == Phase::update; }

std::string where(const RankView& view) {
  std::string phase = fmt::format("{} of step {}", name_of(view.progress.phase), view.progress.step);
  return view.progress.step == 0 ? std::string(name_of(view.progress.phase)) : phase;
}

bool is_stopped(const RankView& view) { return view.process_state == 'T'; }
bool is_silent(const RankView& view) { return view.process_state == '?'; }

std::string state_of(const RankView& view) {
  if (is_stopped(view)) return "stopped";
  if (is_silent(view)) return "not heard of";
  return view.inside ? "waits" : "not in a collective";
}

std::string line_of(const RankView& view) {
  std::string place = view.host.empty() ? "" : " on " + view.host;
  std::string last = view.collective.empty() ? "" : (view.inside ? " in " : ", last in ") + view.collective;
  return fmt::format("rank {}{}: {}, {}{}", view.rank, place, where(view), state_of(view), last);
}

// Silence of one rank among others that are heard is the rank's own.
std::string why_silent(const RankView& view, const std::vector<RankView>& ranks) {
  bool neighbour_heard = std::any_of(ranks.begin(), ranks.end(), [&](const RankView& other) {
    return other.host == view.host && !is_silent(other);
  });
  return neighbour_heard ? "it was stopped, for other ranks of its machine are heard"
                         : "its machine or the link to it is down, or it was stopped";
}

// What the others wait for, and it has not come to.
std::string missed(const RankView& culprit, const std::vector<RankView>& ranks) {
  for (const RankView& view : ranks) {
    if (view.rank != culprit.rank && view.inside)
      return fmt::format("; rank {} waits in {}", view.rank, view.collective);
  }
  return "";
}

// Whether all others have left the collective that this rank is still in.
bool is_left_behind(const RankView& view, const std::vector<RankView>& ranks) {
  if (ranks.size() < 2 || view.group.empty()) return false;
  return std::all_of(ranks.begin(), ranks.end(), [&](const RankView& other) {
    auto left = other.completed.find(view.group);
    return other.rank == view.rank || (left != other.completed.end() && left->second >= view.sequence);
  });
}

// The rank that holds up the others, and how it does; rank -1: none can be told.
Hang find_culprit(const std::vector<RankView>& ranks) {
  auto first = [&](auto fits) { return std::find_if(ranks.begin(), ranks.end(), fits); };
  auto blamed = [&](const RankView& view, const std::string& what) {
    return Hang{.rank = view.rank, .host = view.host, .what = what + missed(view, ranks)};
  };
  if (auto found = first(is_stopped); found != ranks.end())
    return blamed(*found, fmt::format("stopped by a signal in {}", where(*found)));
  if (auto found = first(is_silent); found != ranks.end())
    return blamed(*found, fmt::format("silent in {}: {}", where(*found), why_silent(*found, ranks)));
  if (auto found = first([](const RankView& view) { return !view.inside; }); found != ranks.end())
    return blamed(*found, fmt::format("alive, not advancing in {}", where(*found)));
  if (auto found = first([&](const RankView& view) { return is_left_behind(view, ranks); }); found != ranks.end()) {
    return {.rank = found->rank,
            .host = found->host,
            .what = fmt::format("alive, not advancing in {}, in {}, which all others have left", where(*found),
                                found->collective)};
  }
  return {.what = fmt::format("every rank that is seen waits, rank {} in {}; the network, or a rank that is not seen",
                              ranks.front().rank, ranks.front().collective)};
}

}  // namespace

double Liveness::limit(Phase phase) const {
  if (phase == Phase::start || phase == Phase::finish) return kStartOrFinishSeconds;
  if (!is_step(phase) || step_seconds_.size() < kFewestSteps) return kPhaseSeconds;
  std::vector<double> sorted(step_seconds_.begin(), step_seconds_.end());
  std::sort(sorted.begin(), sorted.end());
  auto at = static_cast<size_t>(std::ceil(0.99 * static_cast<double>(sorted.size()))) - 1;
  return std::max(kLeastSeconds, kTimesSlower * sorted[at]);
}

std::optional<Hang> Liveness::look(double now, const std::vector<RankView>& ranks) {
  double since_last = now - last_look_;
  bool blind = last_.empty() || since_last > kBlindSeconds;
  last_look_ = now;
  if (blind) {
    progress_at_ = now;
    still_.clear();
  }
  // The first rank's steps stand for all: they take them together. Those before our first look were quick ones.
  if (!ranks.empty()) {
    const ProgressState& progress = ranks.front().progress;
    if (last_.empty()) learn(0, {.step = progress.first_step}, progress);
    if (!blind) learn(since_last, last_.front().progress, progress);
  }
  if (ranks != last_) progress_at_ = now;
  last_ = ranks;
  if (ranks.empty()) return {};
  if (auto stopped = find_still(now, ranks)) return stopped;
  double allowed = 0;
  for (const RankView& view : ranks) allowed = std::max(allowed, limit(view.progress.phase));
  if (now - progress_at_ <= allowed) return {};
  return blame(now, ranks);
}

std::optional<Hang> Liveness::find_still(double now, const std::vector<RankView>& ranks) {
  for (const RankView& view : ranks) {
    if (!is_stopped(view) && !is_silent(view)) {
      still_.erase(view.rank);
      continue;
    }
    double before = is_silent(view) ? kUnheardSeconds : 0;
    Still& still = still_.try_emplace(view.rank, Still{now, view.progress.beats}).first->second;
    if (still.beats != view.progress.beats) still = {now, view.progress.beats};
    double seconds = before + now - still.since;
    if (seconds < (is_silent(view) ? kSilentSeconds : kStoppedSeconds)) continue;
    Hang hang = blame(now, ranks);
    hang.seconds = seconds;
    return hang;
  }
  return {};
}

void Liveness::learn(double seconds, const ProgressState& before, const ProgressState& now) {
  if (is_step(before.phase) && is_step(now.phase)) in_step_ += seconds;
  int64_t steps = now.step - before.step;
  if (steps <= 0) return;
  for (int64_t i = std::max(before.step, now.first_step + kWarmUpSteps - 1); i < now.step; ++i) {
    step_seconds_.push_back(in_step_ / static_cast<double>(steps));
    if (step_seconds_.size() > kMostSteps) step_seconds_.pop_front();
  }
  in_step_ = 0;
}

Hang Liveness::blame(double now, const std::vector<RankView>& ranks) const {
  Hang hang = find_culprit(ranks);
  hang.seconds = now - progress_at_;
  for (const RankView& view : ranks) hang.ranks.push_back(line_of(view));
  return hang;
}

}  // namespace echelon
