#include "runtime/schedules/warmup_stable_decay.pb.h"

#include <cmath>
#include <numbers>

#include "cluster/base/registry.h"
#include "runtime/schedule.h"

namespace echelon {

namespace {

class StableDecay : public WarmupSchedule {
 public:
  StableDecay(const WarmupStableDecay& options, int64_t steps)
      : WarmupSchedule(options.warmup_steps(), steps), options_(options), steps_(static_cast<double>(steps)) {}

 protected:
  double decay(double, int64_t step) const override {
    double length = std::max(1.0, options_.decay_fraction() * steps_);
    double progress = std::clamp((static_cast<double>(step) - (steps_ - length)) / length, 0.0, 1.0);
    return between(options_.final_fraction(), share(progress));
  }

 private:
  double share(double progress) const {
    switch (options_.shape()) {
      case WarmupStableDecay::COSINE: return 0.5 * (1 + std::cos(std::numbers::pi * progress));
      case WarmupStableDecay::ONE_MINUS_SQRT: return 1 - std::sqrt(progress);
      default: return 1 - progress;
    }
  }

  WarmupStableDecay options_;
  double steps_;
};

}  // namespace

void register_warmup_stable_decay(Registry& registry) {
  registry.add<Schedule, WarmupStableDecay>([](const WarmupStableDecay& options, const Schedule::Context& context) {
    return std::make_unique<StableDecay>(options, context.steps);
  });
}

}  // namespace echelon
