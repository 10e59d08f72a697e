#include "runtime/schedules/warmup_cosine.pb.h"

#include <cmath>
#include <numbers>

#include "cluster/base/registry.h"
#include "runtime/schedule.h"

namespace echelon {

namespace {

class CosineDecay : public WarmupSchedule {
 public:
  CosineDecay(const WarmupCosine& options, int64_t steps)
      : WarmupSchedule(options.warmup_steps(), steps), options_(options) {}

 protected:
  double decay(double progress, int64_t step) const override {
    return between(options_.final_fraction(), 0.5 * (1 + std::cos(std::numbers::pi * progress)));
  }

 private:
  WarmupCosine options_;
};

}  // namespace

void register_warmup_cosine(Registry& registry) {
  registry.add<Schedule, WarmupCosine>([](const WarmupCosine& options, const Schedule::Context& context) {
    return std::make_unique<CosineDecay>(options, context.steps);
  });
}

}  // namespace echelon
