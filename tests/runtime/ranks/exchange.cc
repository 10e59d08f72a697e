// Training over every exchange on real ranks: it learns as it does with exact sums, counts its bytes, and goes on from
// a checkpoint.
#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "runtime/checkpoint/load.h"
#include "runtime/checkpoint/save.h"
#include "runtime/plan.h"
#include "runtime/recipe/text.h"
#include "runtime/trainer.h"
#include "sharding/flat_shard.h"
#include "tests/runtime/corpus.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/test_session.h"

namespace echelon {
namespace {

const Group& world() { return testing::session().world(); }

/// The tiny decoder, where matrices of width 64 leave something to compress.
Recipe recipe_of(const std::string& exchange, const std::vector<std::string>& more = {}) {
  Recipe recipe = testing::tiny_recipe("base/tiny_decoder_clm", more);
  if (!exchange.empty())
    *recipe.mutable_exchange() = parse_recipe("exchange { [echelon/" + exchange + " }", "test").exchange();
  return recipe;
}

/// The tiny decoder under 1-bit Adam with a warm-up of two steps.
Recipe one_bit_adam(const std::vector<std::string>& more = {}) {
  Recipe recipe = recipe_of("", more);
  *recipe.mutable_optimizer() =
      parse_recipe("optimizer { [echelon/OneBitAdam] { warmup_steps: 2 } }", "test").optimizer();
  return recipe;
}

const std::vector<std::string> kLossy{"Exact] { wire: BF16 }", "Int8] {}", "Sign] { exact_steps: 0 }",
                                      "TopK] { fraction: 0.1 exact_steps: 0 }", "PowerSgd] { exact_steps: 0 }"};

std::vector<double> losses_of(const Recipe& recipe, int64_t steps, std::vector<double>* norms = nullptr) {
  Mesh mesh(world(), {.tp = recipe.mesh().tp()});
  Trainer trainer(recipe, mesh);
  std::vector<double> losses;
  for (int64_t step = 1; step <= steps; ++step) {
    Report report = trainer.step(step);
    losses.push_back(report.loss);
    if (norms) norms->push_back(report.gradient_norm);
  }
  return losses;
}

std::vector<std::string> layout(int zero, int tp) {
  return {"sharding.zero=" + std::to_string(zero), "mesh.tp=" + std::to_string(tp)};
}

/// Tensor parallelism that leaves something to exchange.
int tp_beside_dp() { return world().size() % 4 == 0 ? 2 : 1; }

/// Every stage, and tensor parallelism at two of them.
std::vector<std::pair<int, int>> layouts() {
  std::vector<std::pair<int, int>> all{{0, 1}, {1, 1}, {2, 1}, {3, 1}};
  if (world().size() % 2 == 0) all.insert(all.end(), {{0, 2}, {3, 2}});
  return all;
}

TEST(ExchangeOnRanks, AtFullSizeTakesTheStepsOfExactSums) {
  for (auto [zero, tp] : layouts()) {
    std::vector<double> exact = losses_of(recipe_of("", layout(zero, tp)), 5);
    for (const char* exchange :
         {"TopK] { fraction: 1 exact_steps: 0 }", "PowerSgd] { rank: 1000 minimum_saving: 0 exact_steps: 0 }"}) {
      SCOPED_TRACE(fmt::format("{} ZeRO-{} tp={}", exchange, zero, tp));
      std::vector<double> losses = losses_of(recipe_of(exchange, layout(zero, tp)), 5);
      for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], exact[i], 1e-4 * exact[i]) << "step " << i + 1;
    }
  }
}

TEST(ExchangeOnRanks, EveryStageTakesTheSameSteps) {
  // Two micro-steps a step: feedback sends their sum once at every stage, int8 rounds each at stages 2 and 3.
  std::string micro = "batch.micro=" + std::to_string(std::max(1, 6 / world().size()));
  for (const std::string& exchange : kLossy) {
    std::vector<double> first;
    for (int zero = 0; zero <= 3; ++zero) {
      SCOPED_TRACE(fmt::format("{} ZeRO-{}", exchange, zero));
      std::vector<double> losses = losses_of(recipe_of(exchange, {"sharding.zero=" + std::to_string(zero), micro}), 4);
      if (first.empty()) first = losses;
      for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(losses[i], first[i], 2e-3 * first[i]) << "step " << i + 1;
    }
  }
}

TEST(ExchangeOnRanks, LearnsAsExactSumsDo) {
  for (const char* precision : {"precision=FP32", "precision=BF16"}) {
    std::vector<double> exact = losses_of(recipe_of("", {precision, "clip_norm=0.5"}), 20);
    for (const std::string& exchange : kLossy) {
      std::vector<double> losses = losses_of(recipe_of(exchange, {precision, "clip_norm=0.5"}), 20);
      double learnt = losses.front() - losses.back(), expected = exact.front() - exact.back();
      EXPECT_GT(learnt, 0.5 * expected) << exchange << " " << precision << ": " << losses.front() << " to "
                                        << losses.back();
    }
  }
}

TEST(ExchangeOnRanks, SendsTheBytesOfThePlan) {
  for (auto [zero, tp] : layouts()) {
    for (const std::string& exchange : kLossy) {
      SCOPED_TRACE(fmt::format("{} ZeRO-{} tp={}", exchange, zero, tp));
      Recipe recipe = recipe_of(exchange, layout(zero, tp));
      Mesh mesh(world(), {.tp = tp});
      Trainer trainer(recipe, mesh);
      EXPECT_EQ(trainer.step(1).bytes_sent[static_cast<int>(Purpose::gradients)],
                plan_of(recipe, world().size()).sent_gradients);
    }
  }
}

TEST(ExchangeOnRanks, SumsExactlyInItsFirstSteps) {
  if (world().size() == 1) return;
  for (const char* exchange :
       {"Sign] { exact_steps: 2 }", "TopK] { fraction: 0.1 exact_steps: 2 }", "PowerSgd] { exact_steps: 2 }"}) {
    SCOPED_TRACE(exchange);
    std::vector<std::string> more = layout(2, tp_beside_dp());
    std::vector<double> exact = losses_of(recipe_of("", more), 4);
    Mesh mesh(world(), {.tp = tp_beside_dp()});
    Trainer trainer(recipe_of(exchange, more), mesh);
    for (int64_t step = 1; step <= 4; ++step) {
      Report report = trainer.step(step);
      int64_t sent = report.bytes_sent[static_cast<int>(Purpose::gradients)];
      EXPECT_EQ(sent, plan_of(recipe_of(step <= 2 ? "" : exchange, more), world().size()).sent_gradients)
          << "step " << step;
      if (step <= 3) {
        EXPECT_EQ(report.loss, exact[step - 1]) << "step " << step;
      } else if (step == 4) {
        EXPECT_NE(report.loss, exact[3]);
      }
    }
  }
}

/// What the ranks alone know of every whole tensor, added up in float64. Collective over the trainer's ranks.
std::map<std::string, at::Tensor> summed(Trainer& trainer, const std::string& what) {
  std::map<std::string, at::Tensor> sums;
  for (Owned& owned : trainer.owned()) {
    at::Tensor flat = trainer.zero().exchange->summands(*owned.shard).at(what);
    for (const Parameter* parameter : owned.shard->parameters()) {
      at::Tensor sum = at::zeros(parameter->layout().sizes, at::kDouble), part = sum;
      const Slice& local = parameter->local();
      for (size_t dim = 0; dim < local.sizes.size(); ++dim)
        part = part.narrow(static_cast<int64_t>(dim), local.offsets[dim], local.sizes[dim]);
      part.copy_(flat.narrow(0, parameter->offset(), local.elements()).view(local.sizes));
      trainer.mesh().world().all_reduce(sum, {.name = what}).wait();
      sums[parameter->name()] = sum;
    }
  }
  return sums;
}

std::string save(Trainer& trainer, const std::string& name, int64_t step) {
  std::string folder = testing::temporary_folder() + "/" + name;
  if (world().rank() == 0) make_folders(folder);
  world().barrier({.name = "folder"});
  CheckpointStore store(folder);
  save_checkpoint(trainer, store, step, 2);
  return folder + "/checkpoints/" + step_name(step);
}

void load(Trainer& trainer, const std::string& folder) {
  CheckpointReader reader(open_checkpoint(folder));
  load_state(trainer, reader);
}

TEST(ExchangeOnRanks, GoesOnWithTheSameBitsOnTheSameRanks) {
  for (const char* exchange :
       {"Sign] { exact_steps: 0 }", "TopK] { fraction: 0.1 exact_steps: 0 }", "PowerSgd] { exact_steps: 0 }", ""}) {
    SCOPED_TRACE(*exchange ? exchange : "OneBitAdam");
    std::vector<std::string> more = layout(3, tp_beside_dp());
    Recipe recipe = *exchange ? recipe_of(exchange, more) : one_bit_adam(more);
    Mesh mesh(world(), {.tp = recipe.mesh().tp()});
    Trainer trainer(recipe, mesh), resumed(recipe, mesh);
    for (int64_t step = 1; step <= 3; ++step) trainer.step(step);
    load(resumed, save(trainer, "same-" + std::string(1, *exchange ? *exchange : '1'), 3));
    for (int64_t step = 4; step <= 6; ++step) {
      Report expected = trainer.step(step), got = resumed.step(step);
      EXPECT_EQ(got.loss, expected.loss) << "step " << step;
      EXPECT_EQ(got.gradient_norm, expected.gradient_norm) << "step " << step;
    }
  }
}

TEST(ExchangeOnRanks, KeepsTheSumOfResidualsOnAnyOtherLayout) {
  int tp = tp_beside_dp();
  Recipe recipe = recipe_of("Sign] { exact_steps: 0 }", layout(2, tp));
  Mesh mesh(world(), {.tp = tp});
  Trainer trainer(recipe, mesh);
  for (int64_t step = 1; step <= 3; ++step) trainer.step(step);
  std::map<std::string, at::Tensor> before = summed(trainer, "residual");
  std::string folder = save(trainer, "other", 3);
  Session alone = Session::alone();
  Group half = world().split(world().rank() % 2, world().rank(), "half");
  std::vector<std::tuple<const Group*, int, int>> others{
      {&alone.world(), 0, 1}, {&half, 3, 1}, {&half, 1, half.size()}, {&world(), 0, 1}};
  for (auto [group, zero, other_tp] : others) {
    SCOPED_TRACE(fmt::format("{} ranks ZeRO-{} tp={}", group->size(), zero, other_tp));
    Mesh other_mesh(*group, {.tp = other_tp});
    Trainer other(recipe_of("Sign] { exact_steps: 0 }", layout(zero, other_tp)), other_mesh);
    load(other, folder);
    std::map<std::string, at::Tensor> after = summed(other, "residual");
    for (const auto& [name, sum] : before) {
      at::Tensor ulp = sum.abs() * 0x1p-23;
      EXPECT_TRUE((after.at(name) - sum).abs().le(ulp).all().item<bool>()) << name;
    }
    EXPECT_GT(before.at("embeddings.tokens.weight").abs().max().item<double>(), 0);
    EXPECT_TRUE(std::isfinite(other.step(4).loss));
  }
}

TEST(OneBitAdamOnRanks, IsAdamInTheWarmUp) {
  Recipe adam = recipe_of("");
  *adam.mutable_optimizer() = parse_recipe("optimizer { [echelon/AdamW] {} }", "test").optimizer();
  std::vector<double> expected = losses_of(adam, 4), got = losses_of(one_bit_adam(), 4);
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(got[i], expected[i], 1e-6 * expected[i]) << "step " << i + 1;
  EXPECT_NE(got[3], expected[3]);
}

TEST(OneBitAdamOnRanks, MomentaOfAllRanksAddUpToAdams) {
  for (auto [zero, tp] : layouts()) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", zero, tp));
    std::vector<std::string> more = layout(zero, tp);
    more.push_back("clip_norm=0");
    Recipe recipe = one_bit_adam(more);
    Mesh mesh(world(), {.tp = tp});
    Trainer trainer(recipe, mesh);
    for (int64_t step = 1; step <= 2; ++step) trainer.step(step);
    std::map<std::string, at::Tensor> momenta = summed(trainer, "momentum");
    auto mean = [&](FlatShard& shard) {
      for (Owned& owned : trainer.owned()) {
        if (owned.shard == &shard) return owned.state.at("exp_avg");
      }
      return at::Tensor();
    };
    trainer.model().weights().visit_whole(mean, [&](const Parameter& p, const at::Tensor& value) {
      double largest = value.abs().max().item<double>();
      EXPECT_LE((momenta.at(p.name()) - value).abs().max().item<double>(), 1e-5 * largest + 1e-9) << p.name();
    });
  }
}

TEST(OneBitAdamOnRanks, LearnsWithSignsAndCountsTheirBytes) {
  for (auto [zero, tp] : layouts()) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", zero, tp));
    Recipe recipe = one_bit_adam(layout(zero, tp));
    Mesh mesh(world(), {.tp = tp});
    Trainer trainer(recipe, mesh);
    double first = trainer.step(1).loss;
    Report report;
    for (int64_t step = 2; step <= 20; ++step) report = trainer.step(step);
    EXPECT_LT(report.loss, first - 0.1);
    EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::gradients)], plan_of(recipe, world().size()).sent_gradients);
  }
}

TEST(OneBitAdamOnRanks, RefusesAnExchangeBesideItsOwn) {
  Recipe recipe = one_bit_adam();
  *recipe.mutable_exchange() = recipe_of("Int8] {}").exchange();
  Mesh mesh(world(), {});
  try {
    Trainer trainer(recipe, mesh);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::recipe);
    EXPECT_NE(std::string(error.what()).find("brings its own"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace echelon
