#include "tests/runtime/ranks/trace.h"

#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/test_session.h"

namespace echelon::testing {

NamedTensors whole(Trainer& trainer, const std::function<at::Tensor(FlatShard&)>& owned) {
  NamedTensors all;
  trainer.model().weights().visit_whole(
      owned, [&](const Parameter& p, const at::Tensor& value) { all[p.name()] = value.cpu().clone(); });
  return all;
}

Trace train(const Recipe& recipe, const Group& world, MeshShape shape, int64_t steps) {
  Mesh mesh(world, shape);
  Trainer trainer(recipe, mesh);
  Trace trace;
  for (int64_t step = 1; step <= steps; ++step) {
    Report report = trainer.step(step);
    trace.losses.push_back(report.loss);
    trace.norms.push_back(report.gradient_norm);
  }
  trace.weights = whole(trainer, [](FlatShard& shard) { return shard.master(); });
  trace.gradients = whole(trainer, [](FlatShard& shard) { return shard.gradient(); });
  return trace;
}

void expect_equal_in_float64(Recipe recipe, int64_t steps) {
  recipe.set_precision(FP64);
  Session alone = Session::alone();
  Trace one = train(recipe, alone.world(), {}, steps);
  Trace many =
      train(recipe, session().world(), {.tp = recipe.mesh().tp(), .replicas = recipe.mesh().replicas()}, steps);
  for (size_t i = 0; i < one.losses.size(); ++i) {
    EXPECT_NEAR(many.losses[i], one.losses[i], 1e-9 * std::abs(one.losses[i])) << "loss of step " << i + 1;
    EXPECT_NEAR(many.norms[i], one.norms[i], 1e-9 * one.norms[i]) << "gradient norm of step " << i + 1;
  }
  for (const auto& [name, weight] : one.weights) {
    EXPECT_LE((weight - many.weights.at(name)).abs().max().item<double>(), 1e-7) << name;
  }
}

bool has_ranks_for(int tp) { return session().world().size() % tp == 0; }

}  // namespace echelon::testing
