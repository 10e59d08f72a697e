#include "runtime/schedules/warmup_inverse_sqrt.pb.h"

#include <cmath>
#include <numbers>

#include "cluster/base/registry.h"
#include "runtime/schedule.h"

namespace echelon {

namespace {

class InverseSqrtDecay : public WarmupSchedule {
 public:
  InverseSqrtDecay(const WarmupInverseSqrt& options, int64_t steps)
      : WarmupSchedule(options.warmup_steps(), steps), options_(options) {}

 protected:
  double decay(double progress, int64_t step) const override {
    double start = static_cast<double>(std::max<int64_t>(1, warmup()));
    return std::max(options_.final_fraction(), std::sqrt(start / static_cast<double>(std::max<int64_t>(1, step))));
  }

 private:
  WarmupInverseSqrt options_;
};

}  // namespace

void register_warmup_inverse_sqrt(Registry& registry) {
  registry.add<Schedule, WarmupInverseSqrt>([](const WarmupInverseSqrt& options, const Schedule::Context& context) {
    return std::make_unique<InverseSqrtDecay>(options, context.steps);
  });
}

}  // namespace echelon
