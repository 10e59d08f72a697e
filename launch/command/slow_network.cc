#include "launch/command/slow_network.h"

#include <algorithm>

#include <fmt/format.h>

namespace echelon {

namespace {

constexpr double kWindowSeconds = 10, kSilentSeconds = 60;
constexpr int64_t kFewestSteps = 3;
constexpr double kTimesSlower = 1.5, kShare = 0.6;
// Looks further apart than this have not seen enough.
constexpr double kBlindSeconds = 3;

bool is_in_a_step(const RankView& view) {
  Phase phase = view.progress.phase;
  return phase == Phase::input || phase == Phase::compute || phase == Phase::update;
}

bool is_inside(const RankView& view) { return view.inside; }

}  // namespace

SlowNetwork::Window SlowNetwork::Window::per_step() const {
  auto count = static_cast<double>(steps);
  return {seconds / count, network_seconds / count, 1};
}

void SlowNetwork::count(double seconds, const std::vector<RankView>& ranks) {
  if (!std::all_of(ranks.begin(), ranks.end(), is_in_a_step)) return;
  window_.seconds += seconds;
  if (std::all_of(ranks.begin(), ranks.end(), is_inside)) window_.network_seconds += seconds;
}

std::optional<std::string> SlowNetwork::look(double now, const std::vector<RankView>& ranks) {
  double seconds = now - last_look_;
  bool blind = last_look_ < 0 || seconds > kBlindSeconds;
  last_look_ = now;
  if (ranks.size() < 2) return {};
  int64_t step = ranks.front().progress.step;
  int64_t steps = step - last_step_;
  last_step_ = step;
  if (blind || steps < 0) return window_ = {}, std::nullopt;
  count(seconds, ranks);
  window_.steps += steps;
  if (window_.seconds < kWindowSeconds || window_.steps < kFewestSteps) return {};
  auto words = judge(now, window_.per_step());
  window_ = {};
  return words;
}

std::optional<std::string> SlowNetwork::judge(double now, const Window& step) {
  if (!best_ || step.seconds < best_->seconds) best_ = step;
  double slower = step.seconds - best_->seconds;
  bool is_slow = step.seconds >= kTimesSlower * best_->seconds;
  bool by_network = step.network_seconds - best_->network_seconds >= kShare * slower;
  if (!is_slow || !by_network || now - said_ < kSilentSeconds) return {};
  said_ = now;
  return fmt::format(
      "the network has become slow, or processors are busy otherwise: a step takes {:.2g} s, {:.2g} s at best; for "
      "{:.2g} s of it every rank is inside a collective",
      step.seconds, best_->seconds, step.network_seconds);
}

}  // namespace echelon
