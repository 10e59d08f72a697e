#include "launch/command/restart.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

namespace echelon {

namespace {

constexpr double kFirstWaitSeconds = 1, kLongestWaitSeconds = 60, kJitter = 0.25;
constexpr int kAttemptsInVain = 3, kSameFailures = 3;

}  // namespace

Decision RestartPolicy::after(const Attempt& attempt) {
  count(attempt);
  if (!attempt.may_pass || !ever_started_ || most_restarts_ == 0) return {};
  Decision decision{.reason = reason_to_stop(attempt)};
  if (!decision.reason.empty()) return decision;
  decision.restart = true;
  decision.wait_seconds = next_wait();
  if (times_ == kSameFailures - 1 && attempt.has_earlier) decision.before_step = attempt.newest_step;
  return decision;
}

void RestartPolicy::count(const Attempt& attempt) {
  ever_started_ |= attempt.started;
  bool progress = attempt.newest_step > best_step_;
  if (progress) {
    best_step_ = attempt.newest_step;
    restarts_ = attempts_in_vain_ = times_ = 0;
  } else {
    ++attempts_in_vain_;
  }
  times_ = attempt.signature == last_signature_ ? times_ + 1 : 1;
  last_signature_ = attempt.signature;
}

std::string RestartPolicy::reason_to_stop(const Attempt& attempt) const {
  std::string behind = best_step_ < 0 ? "before the first checkpoint" : fmt::format("behind step {}", best_step_);
  if (times_ >= kSameFailures) return fmt::format("the same failure {} times {}", times_, behind);
  if (attempts_in_vain_ >= kAttemptsInVain) return fmt::format("{} attempts failed {}", attempts_in_vain_, behind);
  if (restarts_ < most_restarts_) return {};
  return fmt::format("--max_restarts={} is used up {}", most_restarts_, behind);
}

double RestartPolicy::next_wait() {
  double wait = std::min(kLongestWaitSeconds, kFirstWaitSeconds * std::pow(2, restarts_++));
  // By hand: the distributions of <random> differ between libraries.
  double fraction = static_cast<double>(random_() >> 11) * 0x1.0p-53;
  return wait * (1 - kJitter * fraction);
}

}  // namespace echelon
