// Units over rank threads: values, gradients and state lie where ZeRO says, and gradients are those of one rank.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "comm/session.h"
#include "sharding/unit.h"

namespace echelon {
namespace {

constexpr int64_t kRows = 13, kColumns = 7;  // primes: no shard boundary falls on a row

/// One Unit with a matrix and a bias, and y = x Wᵀ + b through stock operators.
struct Toy {
  Toy(const Mesh& mesh, int stage, at::ScalarType values = at::kDouble, at::ScalarType master = at::kDouble)
      : zero(mesh, {.stage = stage, .values = values, .master = master}) {
    weights.units.push_back(std::make_unique<Unit>("toy", zero));
    Unit& unit = *weights.units.front();
    matrix = &unit.add("matrix", Layout::replicated({kRows, kColumns}), {.standard_deviation = 1});
    bias = &unit.add("bias", Layout::replicated({kRows}), {.constant = 0.5});
    unit.allocate();
    DrawnTensors drawn(weights, Seed(11));
    weights.load(drawn);
  }

  Unit& unit() { return *weights.units.front(); }

  at::Tensor forward(const at::Tensor& x) {
    at::Tensor entered = unit().enter(x);
    return unit().leave(at::addmm(bias->use(), entered, matrix->use().t()));
  }

  std::map<std::string, at::Tensor> whole(const std::function<at::Tensor(FlatShard&)>& owned) {
    std::map<std::string, at::Tensor> all;
    weights.visit_whole(owned, [&](const Parameter& p, const at::Tensor& value) { all[p.name()] = value.clone(); });
    return all;
  }

  Zero zero;
  Weights weights;
  Parameter *matrix, *bias;
};

at::Tensor input_of(int rank) {
  std::vector<int64_t> sizes{4, kColumns};
  return keyed_normal(Seed(2).with(rank), sizes, Slice::whole(sizes));
}

/// Gradients of the sum of squares over all ranks' inputs, by autograd on one rank.
std::map<std::string, at::Tensor> expected_gradients(int ranks, int micro_steps) {
  std::vector<int64_t> sizes{kRows, kColumns};
  at::Tensor w = keyed_normal(Seed(11).with("init").with("matrix"), sizes, Slice::whole(sizes)).requires_grad_(true);
  at::Tensor b = at::full({kRows}, 0.5, at::kDouble).requires_grad_(true);
  for (int i = 0; i < ranks * micro_steps; ++i) at::addmm(b, input_of(i), w.t()).square().sum().backward();
  return {{"matrix", w.grad()}, {"bias", b.grad()}};
}

class UnitAtStage : public ::testing::TestWithParam<std::tuple<int, int>> {};

TEST_P(UnitAtStage, GradientsOverMicroStepsAreThoseOfOneRank) {
  auto [stage, ranks] = GetParam();
  auto expected = expected_gradients(ranks, 2);
  run_thread_ranks(ranks, [&, stage = stage](const Group& world) {
    Mesh mesh(world, {});
    Toy toy(mesh, stage);
    toy.unit().trained().forget_gradients();
    for (int micro = 0; micro < 2; ++micro) {
      toy.zero.first_micro_step = micro == 0;
      toy.zero.last_micro_step = micro == 1;
      toy.forward(input_of(2 * world.rank() + micro)).square().sum().backward();
    }
    for (const auto& [name, gradient] : toy.whole([](FlatShard& shard) { return shard.gradient(); })) {
      EXPECT_TRUE(at::allclose(gradient, expected.at(name), 1e-12, 1e-12)) << name << " on rank " << world.rank();
    }
  });
}

TEST_P(UnitAtStage, PublishedMastersAreTheNextForward) {
  auto [stage, ranks] = GetParam();
  run_thread_ranks(ranks, [stage = stage](const Group& world) {
    Mesh mesh(world, {});
    for (at::ScalarType values : {at::kDouble, at::kBFloat16}) {
      Toy toy(mesh, stage, values, values == at::kDouble ? at::kDouble : at::kFloat);
      at::Tensor x = input_of(0).to(values);
      at::Tensor before = toy.forward(x).detach().clone();
      EXPECT_GT(before.abs().max().item<double>(), 0);
      world.barrier({.name = "all have read"});
      toy.unit().trained().master().mul_(2);
      toy.weights.publish();
      EXPECT_TRUE(at::allclose(toy.forward(x), before * 2)) << values << " on rank " << world.rank();
    }
  });
}

TEST_P(UnitAtStage, AParameterThatIsNotUsedHasNoGradient) {
  auto [stage, ranks] = GetParam();
  run_thread_ranks(ranks, [stage = stage](const Group& world) {
    Mesh mesh(world, {});
    Toy toy(mesh, stage);
    toy.forward(input_of(world.rank())).sum().backward();
    toy.unit().trained().forget_gradients();
    at::Tensor entered = toy.unit().enter(input_of(world.rank()));
    toy.unit().leave(toy.bias->use() + entered.sum(1, true)).sum().backward();
    auto gradients = toy.whole([](FlatShard& shard) { return shard.gradient(); });
    EXPECT_TRUE(gradients.at("matrix").eq(0).all().item<bool>()) << "rank " << world.rank();
    EXPECT_TRUE(gradients.at("bias").ne(0).all().item<bool>()) << "rank " << world.rank();
  });
}

TEST_P(UnitAtStage, EveryRowIsSavedByExactlyOneRank) {
  auto [stage, ranks] = GetParam();
  at::Tensor counts = at::zeros({kRows + kRows}, at::kLong);
  std::mutex mutex;
  run_thread_ranks(ranks, [&, stage = stage](const Group& world) {
    Mesh mesh(world, {});
    Toy toy(mesh, stage);
    FlatShard& shard = toy.unit().trained();
    FlatShard::Reach reach = shard.reach(shard.master());
    at::Tensor whole = shard.whole(shard.master());
    for (const FlatShard::Rows& rows : shard.rows_to_save()) {
      std::lock_guard lock(mutex);
      int64_t begin = rows.parameter->offset() + rows.slice.offsets[0] * (rows.length / rows.slice.sizes[0]);
      EXPECT_TRUE(at::equal(rows.values(reach).view({-1}), whole.narrow(0, begin, rows.length)))
          << rows.parameter->name();
      int64_t start = rows.slice.offsets[0] + (rows.parameter->name() == "bias" ? kRows : 0);
      counts.narrow(0, start, rows.slice.sizes[0]).add_(1);
    }
  });
  EXPECT_TRUE(counts.eq(1).all().item<bool>()) << counts;
}

INSTANTIATE_TEST_SUITE_P(AllStages, UnitAtStage,
                         ::testing::Combine(::testing::Values(0, 1, 2, 3), ::testing::Values(1, 2, 3, 4)));

TEST(Unit, OfStage3HoldsNoValuesOutsideItsScope) {
  run_thread_ranks(2, [](const Group& world) {
    Mesh mesh(world, {});
    Toy toy(mesh, 3);
    EXPECT_EQ(toy.matrix->value().storage().data(), nullptr);
    toy.unit().gather();
    EXPECT_NE(toy.matrix->value().storage().data(), nullptr);
    toy.unit().release();
    EXPECT_EQ(toy.matrix->value().storage().data(), nullptr);
  });
}

TEST(Unit, WithBfloat16ValuesKeepsGradientsAndMastersInFloat32) {
  run_thread_ranks(2, [](const Group& world) {
    Mesh mesh(world, {});
    Toy toy(mesh, 3, at::kBFloat16, at::kFloat);
    EXPECT_EQ(toy.unit().trained().master().scalar_type(), at::kFloat);
    toy.forward(input_of(world.rank()).to(at::kBFloat16)).sum().backward();
    EXPECT_EQ(toy.unit().trained().gradient().scalar_type(), at::kFloat);
    auto gradients = toy.whole([](FlatShard& shard) { return shard.gradient(); });
    EXPECT_TRUE(at::allclose(gradients.at("bias"), at::full({kRows}, 8.0f)));  // four rows on each of two ranks
  });
}

TEST(Unit, RecomputedGivesTheSameGradients) {
  auto expected = expected_gradients(2, 1);
  run_thread_ranks(2, [&](const Group& world) {
    Mesh mesh(world, {});
    Toy toy(mesh, 3);
    auto body = [&](const at::Tensor& x) { return at::addmm(toy.bias->use(), x, toy.matrix->use().t()); };
    toy.unit().recompute(body, input_of(world.rank())).square().sum().backward();
    for (const auto& [name, gradient] : toy.whole([](FlatShard& shard) { return shard.gradient(); })) {
      EXPECT_TRUE(at::allclose(gradient, expected.at(name), 1e-12, 1e-12)) << name;
    }
  });
}

}  // namespace
}  // namespace echelon
