// The learning rate over a run.
#pragma once

#include <algorithm>
#include <cstdint>

namespace echelon {

class Schedule {
 public:
  struct Context {
    int64_t steps = 0;   ///< updates of the whole run
  };
  virtual ~Schedule() = default;
  /// Factor on the peak learning rate at update `step` (1 = first).
  virtual double factor(int64_t step) const = 0;
};

/// What every schedule with a warm-up shares: a linear rise to 1 at `warmup_steps`, then `decay` of the share of the
/// remaining way that has been gone, in [0, 1].
class WarmupSchedule : public Schedule {
 public:
  WarmupSchedule(int64_t warmup_steps, int64_t steps) : warmup_(warmup_steps), steps_(steps) {}

  double factor(int64_t step) const override {
    if (step < warmup_) return static_cast<double>(step) / static_cast<double>(warmup_);
    double way = static_cast<double>(std::max<int64_t>(1, steps_ - warmup_));
    return decay(std::clamp(static_cast<double>(step - warmup_) / way, 0.0, 1.0), step);
  }

 protected:
  virtual double decay(double progress, int64_t step) const = 0;
  int64_t warmup() const { return warmup_; }

 private:
  int64_t warmup_, steps_;
};

/// From 1 at `share` 1 down to `final_fraction` at `share` 0.
inline double between(double final_fraction, double share) { return final_fraction + (1 - final_fraction) * share; }

}  // namespace echelon
