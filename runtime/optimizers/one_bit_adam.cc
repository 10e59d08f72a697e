#include "runtime/optimizers/one_bit_adam.pb.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <ATen/ATen.h>

#include "cluster/base/registry.h"
#include "runtime/optimizer.h"

namespace echelon {

namespace {

/// In the warm-up, exact sums of gradients; afterwards, of momenta as signs. Each rank keeps the momentum of its own
/// gradients from the first step on, so that the momenta of all ranks add up to Adam's.
class MomentumExchange : public Exchange {
 public:
  explicit MomentumExchange(const OneBitAdam& options)
      : options_(options), signs_(sign_exchange(options.block(), options.between_nodes_only())) {}

  void start(int64_t step) override { warming_ = step <= options_.warmup_steps(); }
  bool forgets_gradients() const override { return false; }

  Work reduce(const Reduction& reduction) override {
    at::Tensor momentum = momentum_of(reduction.shard);
    if (!reduction.accumulate) momentum.mul_(options_.beta1());  // the first of the step
    momentum.add_(reduction.gradient, 1 - options_.beta1());
    zero_padding(reduction.shard, momentum);
    if (warming_) return exact_->reduce(reduction);
    if (!reduction.last) return {};
    return signs_->reduce({reduction.shard, momentum, reduction.owned});
  }

  std::map<std::string, at::Tensor> summands(FlatShard& shard) override {
    std::map<std::string, at::Tensor> all = signs_->summands(shard);
    all["momentum"] = momentum_of(shard);
    return all;
  }

  int64_t bytes_sent(const FlatShard& shard, const Placement& placement) const override {
    return (warming_ ? exact_ : signs_)->bytes_sent(shard, placement);
  }
  int64_t bytes_kept(const FlatShard& shard, const Placement& placement) const override {
    return 2 * signs_->bytes_kept(shard, placement);  // the momentum is as large as the residual
  }

 private:
  at::Tensor momentum_of(FlatShard& shard) {
    at::Tensor& momentum = momenta_[&shard];
    if (!momentum.defined()) momentum = at::zeros({shard.elements()}, shard.gradient().options());
    return momentum;
  }

  OneBitAdam options_;
  std::unique_ptr<Exchange> exact_ = exact_exchange(), signs_;
  std::map<const FlatShard*, at::Tensor> momenta_;
  bool warming_ = true;
};

class OneBitAdamOptimizer : public OptimizerWith<OneBitAdam, OneBitAdamOptimizer> {
 public:
  using OptimizerWith::OptimizerWith;
  std::unique_ptr<Exchange> exchange() const override { return std::make_unique<MomentumExchange>(options_); }
  std::vector<std::string> state_names() const override { return {"exp_avg", "exp_avg_sq"}; }

  template <class Real>
  void apply(const Stretch<Real>& stretch, const Update& update) const {
    bool warming = update.step <= options_.warmup_steps();
    warming ? learn_moments(stretch, update) : take_momentum(stretch, update);
    auto settled = static_cast<double>(std::min(update.step, options_.warmup_steps()));
    double step_size = stretch.learning_rate / (1 - std::pow(options_.beta1(), static_cast<double>(update.step)));
    Real size = static_cast<Real>(step_size),
         keep = static_cast<Real>(1 - stretch.learning_rate * stretch.weight_decay);
    Real correction = static_cast<Real>(std::sqrt(1 - std::pow(options_.beta2(), settled)));
    Real epsilon = static_cast<Real>(options_.epsilon());
    const Real *mean = stretch.state[0], *square = stretch.state[1];
    for (int64_t i = 0; i < stretch.length; ++i) {
      // Without a gradient in the warm-up there is no measure for a step, and a sign is never zero: the weight stays.
      Real step = square[i] > 0 ? size * mean[i] / (std::sqrt(square[i]) / correction + epsilon) : 0;
      stretch.master[i] = stretch.master[i] * keep - step;
    }
  }

 private:
  template <class Real>
  void learn_moments(const Stretch<Real>& stretch, const Update& update) const {
    Real beta1 = static_cast<Real>(options_.beta1()), beta2 = static_cast<Real>(options_.beta2());
    Real scale = static_cast<Real>(update.gradient_scale), *mean = stretch.state[0], *square = stretch.state[1];
    for (int64_t i = 0; i < stretch.length; ++i) {
      Real gradient = stretch.gradient[i] * scale;
      mean[i] += (gradient - mean[i]) * (1 - beta1);
      square[i] = beta2 * square[i] + (1 - beta2) * gradient * gradient;
    }
  }

  /// The exchange has summed momenta: they are the new mean.
  template <class Real>
  static void take_momentum(const Stretch<Real>& stretch, const Update& update) {
    Real scale = static_cast<Real>(update.gradient_scale), *mean = stretch.state[0];
    for (int64_t i = 0; i < stretch.length; ++i) mean[i] = stretch.gradient[i] * scale;
  }
};

}  // namespace

void register_one_bit_adam(Registry& registry) {
  registry.add<Optimizer, OneBitAdam>([](const OneBitAdam& options, const Optimizer::Context&) {
    if (options.warmup_steps() < 1) {
      throw Error::recipe("optimizer.warmup_steps", "OneBitAdam needs at least 1 step to learn its second moment");
    }
    return std::make_unique<OneBitAdamOptimizer>(options);
  });
}

}  // namespace echelon
