#include "runtime/optimizers/adamw.pb.h"

#include <cmath>

#include "cluster/base/registry.h"
#include "runtime/optimizer.h"

namespace echelon {

namespace {

/// One update's factors, in the precision of the state.
template <class Real>
struct Factors {
  Real beta1, beta2, epsilon, keep, step_size, root_correction, scale;
};

template <class Real>
inline __attribute__((always_inline)) void adamw_loop(Real* __restrict w, const Real* __restrict g, Real* __restrict m,
                                                      Real* __restrict v, int64_t length, const Factors<Real>& f) {
  for (int64_t i = 0; i < length; ++i) {
    Real gradient = g[i] * f.scale;
    m[i] += (gradient - m[i]) * (1 - f.beta1);
    v[i] = f.beta2 * v[i] + (1 - f.beta2) * gradient * gradient;
    w[i] = w[i] * f.keep - f.step_size * m[i] / (std::sqrt(v[i]) / f.root_correction + f.epsilon);
  }
}

__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
void adamw(float* w, const float* g, float* m, float* v, int64_t length, const Factors<float>& factors) {
  adamw_loop(w, g, m, v, length, factors);
}

__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
void adamw(double* w, const double* g, double* m, double* v, int64_t length, const Factors<double>& factors) {
  adamw_loop(w, g, m, v, length, factors);
}

class AdamWOptimizer : public Optimizer {
 public:
  explicit AdamWOptimizer(const AdamW& options) : options_(options) {}

  double learning_rate() const override { return options_.learning_rate(); }
  double weight_decay() const override { return options_.weight_decay(); }
  std::vector<std::string> state_names() const override { return {"exp_avg", "exp_avg_sq"}; }

 protected:
  void update(const Stretch<float>& stretch, const Update& update) const override { apply(stretch, update); }
  void update(const Stretch<double>& stretch, const Update& update) const override { apply(stretch, update); }

 private:
  template <class Real>
  void apply(const Stretch<Real>& stretch, const Update& update) const {
    double step = static_cast<double>(update.step);
    Factors<Real> factors{
        .beta1 = static_cast<Real>(options_.beta1()),
        .beta2 = static_cast<Real>(options_.beta2()),
        .epsilon = static_cast<Real>(options_.epsilon()),
        .keep = static_cast<Real>(1 - stretch.learning_rate * stretch.weight_decay),
        .step_size = static_cast<Real>(stretch.learning_rate / (1 - std::pow(options_.beta1(), step))),
        .root_correction = static_cast<Real>(std::sqrt(1 - std::pow(options_.beta2(), step))),
        .scale = static_cast<Real>(update.gradient_scale)};
    adamw(stretch.master, stretch.gradient, stretch.state[0], stretch.state[1], stretch.length, factors);
  }

  AdamW options_;
};

}  // namespace

void register_adamw(Registry& registry) {
  registry.add<Optimizer, AdamW>([](const AdamW& options, const Optimizer::Context&) {
    return std::make_unique<AdamWOptimizer>(options);
  });
}

}  // namespace echelon
