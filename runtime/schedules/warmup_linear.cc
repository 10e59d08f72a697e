#include "runtime/schedules/warmup_linear.pb.h"

#include <cmath>
#include <numbers>

#include "cluster/base/registry.h"
#include "runtime/schedule.h"

namespace echelon {

namespace {

class LinearDecay : public WarmupSchedule {
 public:
  LinearDecay(const WarmupLinear& options, int64_t steps)
      : WarmupSchedule(options.warmup_steps(), steps), options_(options) {}

 protected:
  double decay(double progress, int64_t step) const override {
    return between(options_.final_fraction(), 1 - progress);
  }

 private:
  WarmupLinear options_;
};

}  // namespace

void register_warmup_linear(Registry& registry) {
  registry.add<Schedule, WarmupLinear>([](const WarmupLinear& options, const Schedule::Context& context) {
    return std::make_unique<LinearDecay>(options, context.steps);
  });
}

}  // namespace echelon
