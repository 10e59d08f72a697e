// Updates against the formulas, written out with stock operators.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "cluster/base/registry.h"
#include "comm/session.h"
#include "runtime/optimizer.h"
#include "runtime/optimizers/adamw.pb.h"
#include "runtime/optimizers/sgd.pb.h"
#include "runtime/trainer.h"

namespace echelon {
namespace {

template <class Options>
std::unique_ptr<Optimizer> optimizer(const Options& options) {
  Registry registry;
  register_builtin_methods(registry);
  google::protobuf::Any any;
  any.PackFrom(options);
  return registry.make<Optimizer>(any, {});
}

/// A Unit with a matrix (decays) and a bias (does not), in float64.
struct Fixture {
  Fixture()
      : session(Session::alone()),
        mesh(session.world(), {}),
        zero(mesh, {.stage = 0, .values = at::kDouble, .master = at::kDouble}),
        unit("unit", zero),
        shard(unit.trained()) {
    unit.add("matrix", Layout::replicated({5, 3}), {});
    unit.add("bias", Layout::replicated({5}), {});
    unit.allocate();
    shard.master().copy_(at::linspace(-1, 1, shard.elements(), at::kDouble));
    shard.gradient().copy_(at::linspace(2, -3, shard.elements(), at::kDouble));
  }
  at::Tensor part(const at::Tensor& flat, size_t index) const {
    const Segment& segment = shard.segments()[index];
    return flat.narrow(0, segment.offset, segment.length);
  }
  Session session;
  Mesh mesh;
  Zero zero;
  Unit unit;
  FlatShard& shard;
};

TEST(AdamW, FollowsItsFormulaAndDecaysMatricesOnly) {
  Fixture f;
  AdamW options;
  options.set_beta1(0.8);
  options.set_beta2(0.95);
  options.set_weight_decay(0.1);
  auto adamw = optimizer(options);
  Owned owned = own(f.shard, *adamw, std::vector<GroupRule>(2));
  at::Tensor w = f.shard.master().clone(), g = f.shard.gradient().clone() * 0.5;
  at::Tensor m = at::zeros_like(w), v = at::zeros_like(w);
  for (int64_t step = 1; step <= 3; ++step) {
    adamw->step(owned, {.step = step, .learning_rate = 0.01, .gradient_scale = 0.5});
    m = 0.8 * m + 0.2 * g;
    v = 0.95 * v + 0.05 * g * g;
    at::Tensor direction = (m / (1 - std::pow(0.8, step))) / ((v / (1 - std::pow(0.95, step))).sqrt() + 1e-8);
    f.part(w, 0).mul_(1 - 0.01 * 0.1);
    w = w - 0.01 * direction;
  }
  for (size_t i : {0, 1}) EXPECT_TRUE(at::allclose(f.part(f.shard.master(), i), f.part(w, i), 1e-12, 1e-14)) << i;
}

TEST(AdamW, ParameterGroupsChangeRateAndDecay) {
  Fixture f;
  auto adamw = optimizer(AdamW());
  at::Tensor before = f.shard.master().clone();
  Owned owned = own(f.shard, *adamw, {{.learning_rate_factor = 0}, {.learning_rate_factor = 1, .weight_decay = 0.5}});
  f.shard.gradient().zero_();
  adamw->step(owned, {.step = 1, .learning_rate = 0.1});
  EXPECT_TRUE(at::equal(f.part(f.shard.master(), 0), f.part(before, 0)));
  EXPECT_TRUE(at::allclose(f.part(f.shard.master(), 1), f.part(before, 1) * 0.95, 1e-12, 1e-14));
}

TEST(Sgd, WithMomentumFollowsItsFormula) {
  for (bool nesterov : {false, true}) {
    Fixture f;
    Sgd options;
    options.set_momentum(0.9);
    options.set_nesterov(nesterov);
    options.set_weight_decay(0.1);
    auto sgd = optimizer(options);
    Owned owned = own(f.shard, *sgd, std::vector<GroupRule>(2));
    at::Tensor w = f.shard.master().clone(), u = at::zeros_like(w);
    for (int64_t step = 1; step <= 3; ++step) {
      sgd->step(owned, {.step = step, .learning_rate = 0.1, .gradient_scale = 0.5});
      at::Tensor g = f.shard.gradient() * 0.5;
      f.part(g, 0).add_(f.part(w, 0), 0.1);  // the matrix decays, the bias does not
      u = 0.9 * u + g;
      w = w - 0.1 * (nesterov ? g + 0.9 * u : u);
    }
    for (size_t i : {0, 1}) EXPECT_TRUE(at::allclose(f.part(f.shard.master(), i), f.part(w, i), 1e-12, 1e-14));
  }
}

TEST(Sgd, WithoutMomentumKeepsNoState) {
  Sgd options;
  options.set_momentum(0);
  EXPECT_TRUE(optimizer(options)->state_names().empty());
}

}  // namespace
}  // namespace echelon
