// Any number of ranks, any ZeRO stage and tensor parallelism take the step of one rank.
#include <cmath>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/mesh.h"
#include "runtime/optimizers/sgd.pb.h"
#include "runtime/plan.h"
#include "runtime/schedules/constant.pb.h"
#include "runtime/trainer.h"
#include "tests/comm/values.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/runtime/ranks/trace.h"
#include "tests/test_session.h"

namespace echelon {
namespace {

using testing::has_ranks_for;
using testing::Trace;
using testing::train;

struct Case {
  std::string recipe;
  int zero = 3;
  int tp = 1;
  std::vector<std::string> more;
};

class Equality : public ::testing::Test {
 protected:
  static Recipe recipe_of(const Case& c, const std::string& precision) {
    std::vector<std::string> overrides{"precision=" + precision, "sharding.zero=" + std::to_string(c.zero),
                                       "mesh.tp=" + std::to_string(c.tp)};
    overrides.insert(overrides.end(), c.more.begin(), c.more.end());
    return testing::tiny_recipe(c.recipe, overrides);
  }

  static void expect_same_bits(const Trace& got, const Trace& expected) {
    EXPECT_EQ(got.losses, expected.losses);
    EXPECT_EQ(got.norms, expected.norms);
    for (const auto& [name, weight] : expected.weights)
      EXPECT_TRUE(testing::same_bits(got.weights.at(name), weight)) << name;
  }

  static void expect_equal_in_float64(const Case& c) { testing::expect_equal_in_float64(recipe_of(c, "FP64"), 20); }
};

TEST_F(Equality, DecoderAtEveryZeroStage) {
  for (int zero = 0; zero <= 3; ++zero) {
    SCOPED_TRACE("ZeRO-" + std::to_string(zero));
    expect_equal_in_float64({.recipe = "base/tiny_decoder_clm", .zero = zero});
  }
}

TEST_F(Equality, EncoderAtEveryZeroStage) {
  for (int zero = 0; zero <= 3; ++zero) {
    SCOPED_TRACE("ZeRO-" + std::to_string(zero));
    expect_equal_in_float64({.recipe = "base/tiny_encoder_mlm", .zero = zero});
  }
}

TEST_F(Equality, LlamaWithGroupedQueries) {
  expect_equal_in_float64(
      {.recipe = "base/tiny_decoder_clm",
       .tp = has_ranks_for(2) ? 2 : 1,
       .more = {"model.architecture.family=llama", "model.architecture.kv_heads=2", "model.architecture.dropout=0"}});
}

TEST_F(Equality, TensorParallelAloneAndWithDataParallel) {
  if (!has_ranks_for(2))
    return expect_equal_in_float64({.recipe = "base/tiny_decoder_clm", .zero = 1});  // 3 ranks: no tp=2
  for (int zero : {0, 3}) {
    SCOPED_TRACE("ZeRO-" + std::to_string(zero));
    expect_equal_in_float64({.recipe = "base/tiny_decoder_clm", .zero = zero, .tp = 2});
    expect_equal_in_float64({.recipe = "base/tiny_encoder_mlm", .zero = zero, .tp = 2});
  }
}

TEST_F(Equality, RecomputeDrawsTheSameMasks) {
  expect_equal_in_float64({.recipe = "base/tiny_decoder_clm", .zero = 3, .more = {"sharding.recompute=FULL"}});
  expect_equal_in_float64({.recipe = "base/tiny_decoder_clm", .zero = 3, .more = {"sharding.recompute=SELECTIVE"}});
}

TEST_F(Equality, RecomputeChangesNoBit) {
  const Case gpt2{.recipe = "base/tiny_decoder_clm", .zero = 3}, bert{.recipe = "base/tiny_encoder_mlm", .zero = 2};
  const Case llama{.recipe = "base/tiny_decoder_clm",
                   .zero = 0,
                   .more = {"model.architecture.family=llama", "model.architecture.dropout=0"}};
  for (const Case& c : {gpt2, bert, llama}) {
    for (const char* precision : {"FP32", "BF16"}) {
      Trace kept = train(recipe_of(c, precision), testing::session().world(), {}, 3);
      for (const char* what : {"SELECTIVE", "FULL"}) {
        SCOPED_TRACE(fmt::format("{} {} {}", c.recipe, precision, what));
        Case again = c;
        again.more.push_back(fmt::format("sharding.recompute={}", what));
        expect_same_bits(train(recipe_of(again, precision), testing::session().world(), {}, 3), kept);
      }
    }
  }
}

TEST_F(Equality, Float32LossesStayTogether) {
  for (int zero : {1, 3}) {
    Recipe recipe = recipe_of({.recipe = "base/tiny_decoder_clm", .zero = zero, .more = {"steps=50"}}, "FP32");
    Session alone = Session::alone();
    Trace one = train(recipe, alone.world(), {}, 50);
    Trace many = train(recipe, testing::session().world(), {}, 50);
    // Sums in another order: rounding grows from step to step.
    for (size_t i = 0; i < one.losses.size(); ++i) {
      double tolerance = i < 5 ? 1e-5 : i < 20 ? 1e-4 : 1e-3;
      EXPECT_NEAR(many.losses[i], one.losses[i], tolerance * one.losses[i]) << "step " << i + 1;
    }
  }
}

TEST_F(Equality, Float32GradientsAndOneStepOfDescent) {
  // Without momentum and decay, at a fixed rate of 0.1: neither a common factor on gradients nor a small rate hides a
  // mistake.
  std::vector<std::string> more{"optimizer.learning_rate=0.1", "clip_norm=0"};
  for (const char* name : {"base/tiny_decoder_clm", "base/tiny_encoder_mlm"}) {
    for (int zero : {1, 3}) {
      SCOPED_TRACE(fmt::format("{} ZeRO-{}", name, zero));
      Recipe recipe = recipe_of({.recipe = name, .zero = zero, .more = more}, "FP32");
      Sgd descent;
      descent.set_learning_rate(0.1);
      descent.set_momentum(0);
      recipe.mutable_optimizer()->PackFrom(descent, "echelon");
      recipe.mutable_schedule()->PackFrom(Constant(), "echelon");
      Session alone = Session::alone();
      Trace one = train(recipe, alone.world(), {}, 1);
      Trace many = train(recipe, testing::session().world(), {}, 1);
      double largest = 0;
      for (const auto& [_, gradient] : one.gradients) largest = std::max(largest, gradient.abs().max().item<double>());
      for (const auto& [tensor, gradient] : one.gradients) {
        double tolerance = 1e-5 * gradient.abs().max().item<double>() + 1e-6 * largest;
        EXPECT_LE((gradient - many.gradients.at(tensor)).abs().max().item<double>(), tolerance) << tensor;
        EXPECT_LE((one.weights.at(tensor) - many.weights.at(tensor)).abs().max().item<double>(), 1e-6) << tensor;
      }
    }
  }
}

TEST_F(Equality, BytesSentAreThoseOfThePlan) {
  int ranks = testing::session().world().size();
  for (const Case& c :
       {Case{"base/tiny_decoder_clm", 0}, Case{"base/tiny_decoder_clm", 1}, Case{"base/tiny_decoder_clm", 2},
        Case{"base/tiny_decoder_clm", 3}, Case{"base/tiny_decoder_clm", 3, has_ranks_for(2) ? 2 : 1}}) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", c.zero, c.tp));
    Recipe recipe = recipe_of(c, "FP32");
    Plan plan = plan_of(recipe, ranks);
    Mesh mesh(testing::session().world(), {.tp = c.tp});
    Trainer trainer(recipe, mesh);
    Report report = trainer.step(1);
    EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::gradients)], plan.sent_gradients);
    EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::parameters)], plan.sent_parameters);
    EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::activations)], plan.sent_activations);
    EXPECT_EQ(plan.parameters, trainer.model().weights().elements());
  }
}

}  // namespace
}  // namespace echelon
