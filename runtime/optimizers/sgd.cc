#include "runtime/optimizers/sgd.pb.h"

#include "cluster/base/registry.h"
#include "runtime/optimizer.h"

namespace echelon {

namespace {

class SgdOptimizer : public OptimizerWith<Sgd, SgdOptimizer> {
 public:
  using OptimizerWith::OptimizerWith;
  std::vector<std::string> state_names() const override {
    return options_.momentum() > 0 ? std::vector<std::string>{"momentum"} : std::vector<std::string>{};
  }

  template <class Real>
  void apply(const Stretch<Real>& stretch, const Update& update) const {
    Real rate = static_cast<Real>(stretch.learning_rate), decay = static_cast<Real>(stretch.weight_decay);
    Real scale = static_cast<Real>(update.gradient_scale), momentum = static_cast<Real>(options_.momentum());
    Real* velocity = stretch.state.empty() ? nullptr : stretch.state[0];
    for (int64_t i = 0; i < stretch.length; ++i) {
      Real direction = stretch.gradient[i] * scale + decay * stretch.master[i];
      if (velocity) {
        velocity[i] = momentum * velocity[i] + direction;
        direction = options_.nesterov() ? direction + momentum * velocity[i] : velocity[i];
      }
      stretch.master[i] -= rate * direction;
    }
  }
};

}  // namespace

void register_sgd(Registry& registry) {
  registry.add<Optimizer, Sgd>([](const Sgd& options, const Optimizer::Context&) {
    return std::make_unique<SgdOptimizer>(options);
  });
}

}  // namespace echelon
