// Dropout in training: it is there, it is drawn anew in every step, and evaluation goes without.
#include <cstdlib>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "comm/mesh.h"
#include "comm/session.h"
#include "runtime/recipe/recipe_file.h"
#include "runtime/trainer.h"
#include "tests/runtime/corpus.h"

namespace echelon {
namespace {

struct Losses {
  std::vector<double> training;   // of three steps
  double evaluation = 0;
};

/// Steps on one batch over and over at a learning rate of 0: only dropout can make their losses differ.
Losses losses(double dropout, double attention_dropout) {
  std::string prefix = testing::temporary_folder() + "/one_batch";
  testing::write_corpus(prefix, 12 * 16 + 1, 61, 1);
  Recipe recipe = load_recipe(
      "base/tiny_decoder_clm",
      {"data.train.path=" + prefix, "data.train.sequence_length=16", "data.validation.path=" + prefix,
       "data.validation.sequence_length=16", "data.shuffle=false", "batch.global=12", "batch.micro=12",
       "optimizer.learning_rate=0", fmt::format("model.architecture.dropout={}", dropout),
       fmt::format("model.architecture.attention_dropout={}", attention_dropout)},
      {std::string(std::getenv("ECHELON_SOURCE")) + "/launch/recipes"});
  Session alone = Session::alone();
  Mesh mesh(alone.world(), {});
  Trainer trainer(recipe, mesh);
  Losses losses;
  for (int64_t step = 1; step <= 3; ++step) losses.training.push_back(trainer.step(step).loss);
  losses.evaluation = trainer.evaluate(0).loss;
  return losses;
}

TEST(Dropout, IsDrawnAnewEveryStep) {
  for (auto [hidden, attention] : {std::pair{0.1, 0.0}, std::pair{0.0, 0.1}}) {
    std::vector<double> found = losses(hidden, attention).training;
    EXPECT_NE(found[0], found[1]) << hidden << " " << attention;
    EXPECT_NE(found[1], found[2]) << hidden << " " << attention;
  }
}

TEST(Dropout, IsTheSameWhenDrawnAgain) { EXPECT_EQ(losses(0.1, 0.1).training, losses(0.1, 0.1).training); }

TEST(Dropout, IsLeftOutOfEvaluationAndWhereTheRateIsZero) {
  Losses without = losses(0, 0);
  EXPECT_EQ(without.training[0], without.training[1]);
  EXPECT_EQ(losses(0.5, 0.5).evaluation, without.evaluation);
}

}  // namespace
}  // namespace echelon
