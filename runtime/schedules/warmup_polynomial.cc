#include "runtime/schedules/warmup_polynomial.pb.h"

#include <cmath>
#include <numbers>

#include "cluster/base/registry.h"
#include "runtime/schedule.h"

namespace echelon {

namespace {

class PolynomialDecay : public WarmupSchedule {
 public:
  PolynomialDecay(const WarmupPolynomial& options, int64_t steps)
      : WarmupSchedule(options.warmup_steps(), steps), options_(options) {}

 protected:
  double decay(double progress, int64_t step) const override {
    return between(options_.final_fraction(), std::pow(1 - progress, options_.power()));
  }

 private:
  WarmupPolynomial options_;
};

}  // namespace

void register_warmup_polynomial(Registry& registry) {
  registry.add<Schedule, WarmupPolynomial>([](const WarmupPolynomial& options, const Schedule::Context& context) {
    return std::make_unique<PolynomialDecay>(options, context.steps);
  });
}

}  // namespace echelon
