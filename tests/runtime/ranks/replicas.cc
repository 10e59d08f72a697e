// Replicas of the sharded state: summed over at every step they take the step of one rank, and under DiLoCo they train
// apart and meet.
#include <cmath>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "comm/agree.h"
#include "runtime/checkpoint/load.h"
#include "runtime/checkpoint/save.h"
#include "runtime/plan.h"
#include "runtime/recipe/text.h"
#include "tests/runtime/corpus.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/runtime/ranks/trace.h"
#include "tests/test_session.h"

namespace echelon {
namespace {

using testing::NamedTensors;

const Group& world() { return testing::session().world(); }

const char* const kLowRank = "exchange { [echelon/PowerSgd] { rank: 2 } }";

struct Case {
  int zero = 3, tp = 1;
  std::vector<std::string> more;
};

/// Every stage; and, where there are ranks for it, tensor parallelism at the last.
std::vector<Case> layouts() {
  std::vector<Case> all{{0}, {1}, {2}, {3}};
  if (world().size() % 4 == 0) all.push_back({3, 2});
  return all;
}

/// The tiny decoder on two replicas.
Recipe recipe_of(const Case& c, const std::string& exchange = "") {
  std::vector<std::string> more{"mesh.replicas=2", "precision=FP64", "sharding.zero=" + std::to_string(c.zero),
                                "mesh.tp=" + std::to_string(c.tp)};
  more.insert(more.end(), c.more.begin(), c.more.end());
  Recipe recipe = testing::tiny_recipe("base/tiny_decoder_clm", more);
  if (!exchange.empty())
    *recipe.mutable_exchange() = parse_recipe("exchange { [echelon/" + exchange + " }", "test").exchange();
  return recipe;
}

MeshShape shape_of(const Recipe& recipe) { return {.tp = recipe.mesh().tp(), .replicas = recipe.mesh().replicas()}; }

struct Training {
  explicit Training(const Recipe& recipe, const Group& group = world())
      : mesh(group, shape_of(recipe)), trainer(recipe, mesh) {}
  Report step_to(int64_t last) {
    Report report;
    while (done < last) report = trainer.step(++done);
    return report;
  }
  /// Of this rank's replica.
  NamedTensors masters() {
    return testing::whole(trainer, [](FlatShard& shard) { return shard.master(); });
  }
  NamedTensors mean_masters() {
    NamedTensors mean = masters();
    for (auto& [name, value] : mean) {
      mesh.dp_between_replicas().all_reduce(value, {.name = name}).wait();
      value.div_(mesh.replicas());
    }
    return mean;
  }

  /// What this rank's exchange keeps between steps.
  int64_t bytes_kept() {
    int64_t bytes = 0;
    Exchange& exchange = *trainer.zero().exchange;
    for (Owned& owned : trainer.owned()) {
      for (const auto& all :
           {exchange.owned_state(*owned.shard), exchange.summands(*owned.shard), exchange.warm_start(*owned.shard)}) {
        for (const auto& [name, tensor] : all) bytes += static_cast<int64_t>(tensor.nbytes());
      }
    }
    return bytes;
  }
  /// The residuals of all data parallel ranks, added up in float64; whole tensors on every rank. Collective.
  NamedTensors residuals() {
    NamedTensors sums;
    for (Owned& owned : trainer.owned()) {
      at::Tensor sum =
          trainer.zero().exchange->summands(*owned.shard).at("residual").to(at::kDouble, false, /*copy=*/true);
      mesh.dp().all_reduce(sum, {.name = "residual"}).wait();
      for (const Parameter* parameter : owned.shard->parameters()) {
        const Slice& local = parameter->local();
        at::Tensor whole = at::zeros(parameter->layout().sizes, at::kDouble), part = whole;
        for (size_t dim = 0; dim < local.sizes.size(); ++dim)
          part = part.narrow(static_cast<int64_t>(dim), local.offsets[dim], local.sizes[dim]);
        part.copy_(sum.narrow(0, parameter->offset(), local.elements()).view(local.sizes));
        if (parameter->layout().is_sharded_on("tp")) mesh.tp().all_reduce(whole, {.name = "residual"}).wait();
        sums[parameter->name()] = whole;
      }
    }
    return sums;
  }

  Mesh mesh;
  Trainer trainer;
  int64_t done = 0;
};

double distance(const NamedTensors& a, const NamedTensors& b) {
  double largest = 0;
  for (const auto& [name, value] : a) largest = std::max(largest, (value - b.at(name)).abs().max().item<double>());
  return largest;
}

std::string save(Training& run, const std::string& name) {
  std::string folder = testing::temporary_folder() + "/" + name;
  if (world().rank() == 0) make_folders(folder);
  world().barrier({.name = "folder"});
  CheckpointStore store(folder);
  save_checkpoint(run.trainer, store, run.done, 2);
  return folder + "/checkpoints/" + step_name(run.done);
}

void load(Training& run, const std::string& folder) {
  CheckpointReader reader(open_checkpoint(folder));
  load_state(run.trainer, reader);
  run.done = reader.step();
}

std::string refusal_of(const Recipe& recipe) {
  try {
    Training run(recipe);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::recipe) << error.what();
    return error.what();
  }
  return "no error";
}

TEST(Replicas, TakeTheStepOfOneRankAtEveryStage) {
  for (const Case& c : layouts()) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", c.zero, c.tp));
    testing::expect_equal_in_float64(recipe_of(c), 5);
  }
}

TEST(Replicas, SendTheBytesOfThePlan) {
  for (const Case& c : layouts()) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", c.zero, c.tp));
    Recipe recipe = recipe_of(c);
    Plan plan = plan_of(recipe, world().size());
    Training run(recipe);
    Report report = run.step_to(1);
    EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::gradients)], plan.sent_gradients);
    EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::parameters)], plan.sent_parameters);
    EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::activations)], plan.sent_activations);
  }
}

TEST(Replicas, SaveTheirStateOnce) {
  Recipe recipe = recipe_of({3});
  Training run(recipe);
  run.step_to(2);
  std::string folder = save(run, "hybrid");
  Session alone = Session::alone();
  recipe.mutable_mesh()->set_replicas(1);
  Training one(recipe, alone.world());
  load(one, folder);
  EXPECT_EQ(distance(one.masters(), run.masters()), 0);
  EXPECT_FALSE(CheckpointReader(open_checkpoint(folder)).has("replica.1.embeddings.tokens.weight"));
}

TEST(Replicas, RefuseWhatCannotBe) {
  Recipe int8 = recipe_of({}, "Int8] {}");
  EXPECT_NE(refusal_of(int8).find("echelon.Int8 does not sum over replicas"), std::string::npos) << refusal_of(int8);
  Recipe three = recipe_of({.more = {"mesh.replicas=3"}});
  EXPECT_NE(refusal_of(three).find("does not divide the data parallel ranks"), std::string::npos) << refusal_of(three);
  Recipe one = recipe_of({.more = {"mesh.replicas=1"}}, "DiLoCo] {}");
  EXPECT_NE(refusal_of(one).find("DiLoCo trains replicas apart, and there is one"), std::string::npos)
      << refusal_of(one);
  Recipe top_k = recipe_of({}, "DiLoCo] { exchange { [echelon/TopK] {} } }");
  EXPECT_NE(refusal_of(top_k).find("it sends gradients only"), std::string::npos) << refusal_of(top_k);
  Recipe nodes = recipe_of({}, "DiLoCo] { exchange { [echelon/PowerSgd] { between_nodes_only: true } } }");
  EXPECT_NE(refusal_of(nodes).find("updates travel between replicas"), std::string::npos) << refusal_of(nodes);
}

TEST(DiLoCo, TakesTheStepsOfExactSumsBeforeItTrainsApart) {
  Training local(recipe_of({}, "DiLoCo] { synchronous_steps: 3 }")), exact(recipe_of({}));
  for (int64_t step = 1; step <= 3; ++step) EXPECT_EQ(local.step_to(step).loss, exact.step_to(step).loss);
  EXPECT_EQ(distance(local.masters(), exact.masters()), 0);
  local.step_to(4);
  exact.step_to(4);
  EXPECT_GT(distance(local.masters(), exact.masters()), 0);
}

TEST(DiLoCo, ReplicasTrainOnTheirShareAsIfItWereTheBatch) {
  // The first replica sees the first half of the first batch: what a job of its own with half the batch sees.
  Recipe half = recipe_of({.more = {"mesh.replicas=1", "batch.global=6"}});
  Session alone = Session::alone();
  Training apart(recipe_of({}, "DiLoCo] {}")), lone(half, alone.world());
  apart.step_to(1);
  lone.step_to(1);
  if (apart.mesh.replica() == 0) {
    EXPECT_LE(distance(apart.masters(), lone.masters()), 1e-12);
  }
}

TEST(DiLoCo, AtEveryStepWithoutMomentumIsAveraging) {
  Training meeting(recipe_of({}, "DiLoCo] { inner_steps: 1 outer_learning_rate: 1 outer_momentum: 0 }"));
  Training apart(recipe_of({}, "DiLoCo] { inner_steps: 1000 }"));
  meeting.step_to(1);
  apart.step_to(1);
  EXPECT_GT(distance(apart.masters(), apart.mean_masters()), 1e-6);
  EXPECT_LE(distance(meeting.masters(), apart.mean_masters()), 1e-12);
}

/// Nesterov's step over whole tensors, from where the replicas last met.
struct OuterReference {
  NamedTensors shared, momentum;
  void step(const NamedTensors& mean) {
    for (auto& [name, from] : shared) {
      at::Tensor gradient = from - mean.at(name);
      at::Tensor& velocity = momentum[name];
      velocity = velocity.defined() ? 0.8 * velocity + gradient : gradient;
      from = from - 0.6 * (gradient + 0.8 * velocity);
    }
  }
};

TEST(DiLoCo, TakesTheOuterStepsOfItsPaper) {
  for (const Case& c : layouts()) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", c.zero, c.tp));
    Training run(recipe_of(c, "DiLoCo] { inner_steps: 3 outer_learning_rate: 0.6 outer_momentum: 0.8 }"));
    Training apart(recipe_of(c, "DiLoCo] { inner_steps: 1000 }"));
    OuterReference reference{apart.masters(), {}};
    for (int64_t meeting : {3, 6}) {
      Report expected = apart.step_to(meeting), got = run.step_to(meeting);
      EXPECT_NEAR(got.loss, expected.loss, 1e-9 * expected.loss);
      EXPECT_NEAR(got.gradient_norm, expected.gradient_norm, 1e-9 * expected.gradient_norm);
      reference.step(apart.mean_masters());
      apart.trainer.model().weights().assign(reference.shared);
      apart.trainer.state_was_set();
      EXPECT_LE(distance(run.masters(), reference.shared), 1e-10) << "meeting at step " << meeting;
    }
  }
}

TEST(DiLoCo, ReplicasAreTheSameBitsWhenTheyHaveMet) {
  for (const char* outer : {"", "exchange { [echelon/Int8] {} }", kLowRank}) {
    Training run(recipe_of({layouts().back().zero, layouts().back().tp, {"steps=5"}},
                           fmt::format("DiLoCo] {{ inner_steps: 3 {} }}", outer)));
    for (int64_t step = 1; step <= 5; ++step) {
      run.step_to(step);
      bool met = step == 3 || step == 5;  // the last step of a run is a meeting
      EXPECT_EQ(distance(run.masters(), run.mean_masters()) == 0, met) << "step " << step << " " << outer;
    }
  }
}

TEST(DiLoCo, InEightBitsStaysNearTheExactOuterStep) {
  Training exact(recipe_of({}, "DiLoCo] { inner_steps: 2 outer_learning_rate: 1 outer_momentum: 0 }"));
  Training int8(recipe_of(
      {}, "DiLoCo] { inner_steps: 2 outer_learning_rate: 1 outer_momentum: 0 exchange { [echelon/Int8] {} } }"));
  NamedTensors start = exact.masters();
  exact.step_to(2);
  int8.step_to(2);
  double moved = distance(start, exact.masters());
  // A value is off by at most half of a 127th of its block's largest.
  EXPECT_LE(distance(int8.masters(), exact.masters()), moved);
  EXPECT_LE(distance(int8.masters(), exact.masters()), 2 * moved / 254);
  EXPECT_GT(distance(int8.masters(), exact.masters()), 0);
}

TEST(DiLoCo, AtFullRankTakesTheExactOuterSteps) {
  for (const Case& c : layouts()) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", c.zero, c.tp));
    Training exact(recipe_of(c, "DiLoCo] { inner_steps: 2 }"));
    Training full(
        recipe_of(c, "DiLoCo] { inner_steps: 2 exchange { [echelon/PowerSgd] { rank: 1000 minimum_saving: 0 } } }"));
    exact.step_to(4);
    full.step_to(4);
    EXPECT_LE(distance(full.masters(), exact.masters()), 1e-12);
  }
}

TEST(DiLoCo, InLowRankLosesNothing) {
  std::string meeting = "DiLoCo] { inner_steps: 1 outer_learning_rate: 1 outer_momentum: 0 ";
  for (const Case& c : layouts()) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", c.zero, c.tp));
    Training low(recipe_of(c, meeting + kLowRank + "}")), exact(recipe_of(c, meeting + "}"));
    low.step_to(1);
    exact.step_to(1);
    NamedTensors met = low.masters(), residuals = low.residuals();
    EXPECT_GT(distance(met, exact.masters()), 1e-6) << "nothing was left out";
    for (auto& [name, value] : met) value.sub_(residuals.at(name) / low.mesh.replicas());
    EXPECT_LE(distance(met, exact.masters()), 1e-12);
  }
}

TEST(DiLoCo, InLowRankKeepsTheSumOfResidualsOnAnyOtherLayout) {
  Recipe recipe = recipe_of(layouts().back(), fmt::format("DiLoCo] {{ inner_steps: 2 {} }}", kLowRank));
  Training run(recipe);
  run.step_to(3);
  NamedTensors before = run.residuals();
  EXPECT_GT(before.at("embeddings.tokens.weight").abs().max().item<double>(), 0);
  std::string folder = save(run, "low-rank");
  for (const Case& c : layouts()) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", c.zero, c.tp));
    recipe.mutable_sharding()->set_zero(c.zero);
    recipe.mutable_mesh()->set_tp(c.tp);
    Training other(recipe);
    load(other, folder);
    NamedTensors after = other.residuals();
    for (const auto& [name, sum] : before)
      EXPECT_TRUE((after.at(name) - sum).abs().le(sum.abs() * 0x1p-52).all().item<bool>()) << name;
    EXPECT_TRUE(std::isfinite(other.step_to(4).loss));
  }
}

TEST(DiLoCo, SendsTheBytesOfThePlan) {
  for (const char* outer : {"", "exchange { [echelon/Int8] { block: 64 } }", kLowRank}) {
    for (const Case& c : layouts()) {
      SCOPED_TRACE(fmt::format("ZeRO-{} tp={} {}", c.zero, c.tp, outer));
      Recipe recipe = recipe_of({c.zero, c.tp, {"steps=3"}}, fmt::format("DiLoCo] {{ inner_steps: 2 {} }}", outer));
      Plan plan = plan_of(recipe, world().size());
      Training run(recipe);
      for (int64_t step = 1; step <= 3; ++step) {
        Report report = run.step_to(step);
        EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::gradients)], plan.sent_gradients);
        EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::parameters)], plan.sent_parameters);
        EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::updates)], step == 1 ? 0 : plan.sent_updates);
      }
      EXPECT_GT(plan.sent_updates, 0);
      EXPECT_EQ(agree_max(world(), run.bytes_kept(), "kept"), plan.exchange);
    }
  }
}

TEST(DiLoCo, GoesOnWithTheSameBits) {
  // Saved between two meetings; and once in the synchronous phase.
  std::vector<std::tuple<Case, int64_t, std::string>> cases{{{1}, 1, ""}, {{0}, 4, ""}, {{2}, 4, kLowRank}};
  for (const char* outer : {"", kLowRank}) cases.push_back({layouts().back(), 4, outer});
  for (const auto& [c, saved, outer] : cases) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={} saved at {} {}", c.zero, c.tp, saved, outer));
    Recipe recipe = recipe_of(c, "DiLoCo] { inner_steps: 2 synchronous_steps: 1 " + outer + "}");
    Training run(recipe), resumed(recipe);
    run.step_to(saved);
    load(resumed, save(run, fmt::format("local-{}{}", c.zero, outer.empty() ? "" : "-low-rank")));
    for (int64_t step = saved + 1; step <= 6; ++step) {
      Report expected = run.step_to(step), got = resumed.step_to(step);
      EXPECT_EQ(got.loss, expected.loss) << "step " << step;
      EXPECT_EQ(got.gradient_norm, expected.gradient_norm) << "step " << step;
    }
    EXPECT_EQ(distance(run.masters(), resumed.masters()), 0);
  }
}

TEST(DiLoCo, GivesAnotherNumberOfReplicasTheMean) {
  Recipe recipe = recipe_of({2}, "DiLoCo] { inner_steps: 2 }");
  Training run(recipe);
  run.step_to(3);
  std::string folder = save(run, "mean");
  recipe.clear_exchange();
  recipe.mutable_mesh()->set_replicas(1);
  Session alone = Session::alone();
  Training one(recipe, alone.world());
  load(one, folder);
  EXPECT_LE(distance(one.masters(), run.mean_masters()), 1e-15);
  EXPECT_TRUE(std::isfinite(one.step_to(4).loss));
}

}  // namespace
}  // namespace echelon
