#include "runtime/optimizers/adamw.pb.h"

#include <cmath>

#include "cluster/base/registry.h"
#include "runtime/optimizer.h"
#include "runtime/optimizers/adamw_kernel.h"

namespace echelon {

namespace {

class AdamWOptimizer : public OptimizerWith<AdamW, AdamWOptimizer> {
 public:
  using OptimizerWith::OptimizerWith;
  std::vector<std::string> state_names() const override { return {"exp_avg", "exp_avg_sq"}; }

  template <class Real>
  void apply(const Stretch<Real>& stretch, const Update& update) const {
    double step = static_cast<double>(update.step);
    AdamWFactors<Real> factors{
        .beta1 = static_cast<Real>(options_.beta1()),
        .beta2 = static_cast<Real>(options_.beta2()),
        .epsilon = static_cast<Real>(options_.epsilon()),
        .keep = static_cast<Real>(1 - stretch.learning_rate * stretch.weight_decay),
        .step_size = static_cast<Real>(stretch.learning_rate / (1 - std::pow(options_.beta1(), step))),
        .root_correction = static_cast<Real>(std::sqrt(1 - std::pow(options_.beta2(), step))),
        .scale = static_cast<Real>(update.gradient_scale)};
    void (*step_here)(Real*, const Real*, Real*, Real*, int64_t, const AdamWFactors<Real>&) = adamw_step;
    if (stretch.on_gpu) step_here = gpu::adamw_step;
    step_here(stretch.master, stretch.gradient, stretch.state[0], stretch.state[1], stretch.length, factors);
  }

 protected:
  bool updates_on_gpu() const override { return true; }
};

}  // namespace

void register_adamw(Registry& registry) {
  registry.add<Optimizer, AdamW>(
      [](const AdamW& options, const Optimizer::Context&) { return std::make_unique<AdamWOptimizer>(options); });
}

}  // namespace echelon
