#include "runtime/recipe/check.h"

#include "tests/recipe/folder.h"

namespace echelon {
namespace {

std::string refusal(const std::vector<std::string>& overrides, int ranks = 1) {
  Folder folder;
  LoadedRecipe loaded = read_recipe(folder.write("r.textproto", kGood), overrides, {});
  return error_of([&] { check_recipe(loaded.recipe, ranks, loaded.places); });
}

TEST(Check, AGoodRecipePasses) {
  EXPECT_EQ(refusal({}), "");
  EXPECT_EQ(refusal({"mesh.tp=2"}, 4), "");
}

struct Case {
  std::string override, sentence;
};

class NotBuiltYet : public testing::TestWithParam<Case> {};
TEST_P(NotBuiltYet, IsRefusedByNameAndPlace) {
  EXPECT_EQ(refusal({GetParam().override}),
            "recipe: " + GetParam().override + ": " + GetParam().sentence + " is not available yet");
}
INSTANTIATE_TEST_SUITE_P(Check, NotBuiltYet,
                         testing::Values(Case{"mesh.pp=2", "pipeline parallelism (mesh.pp = 2)"},
                                         Case{"mesh.cp=2", "context parallelism (mesh.cp = 2)"},
                                         Case{"mesh.ep=2", "expert parallelism (mesh.ep = 2)"},
                                         Case{"reproducible=true", "the same bits on any layout (reproducible: true)"},
                                         Case{"precision=FP16", "precision FP16"}));

class WrongValue : public testing::TestWithParam<Case> {};
TEST_P(WrongValue, IsRefusedWithItsRange) {
  EXPECT_EQ(refusal({GetParam().override}), "recipe: " + GetParam().override + ": " + GetParam().sentence);
}
INSTANTIATE_TEST_SUITE_P(
    Check, WrongValue,
    testing::Values(Case{"sharding.zero=4", "sharding.zero is 4, expected in [0, 3]"},
                    Case{"steps=0", "steps is 0, expected at least 1"},
                    Case{"checkpoint.keep=1", "checkpoint.keep is 1, expected at least 2"},
                    Case{"checkpoint.scrub_minutes=-1", "checkpoint.scrub_minutes is -1, expected in [0, 1048576]"},
                    Case{"optimizer.beta1=1", "optimizer.beta1 is 1, expected in [0, 1)"},
                    Case{"optimizer.learning_rate=nan", "optimizer.learning_rate is nan, expected at least 0"},
                    Case{"numerics.skip=-1", "numerics.skip is -1, expected at least 0"},
                    Case{"numerics.roll_back=-1", "numerics.roll_back is -1, expected at least 0"},
                    Case{"numerics.guard_share=1.5", "numerics.guard_share is 1.5, expected in [0, 1]"},
                    Case{"clip_norm=inf", "clip_norm is inf, expected at least 0"},
                    Case{"model.architecture.layers=1000000",
                         "model.architecture.layers is 1000000, expected in [1, 10000]"},
                    Case{"model.architecture.dropout=1", "model.architecture.dropout is 1, expected in [0, 1)"},
                    Case{"mesh.dp=-1", "mesh.dp is -1, expected in [0, 65536]"},
                    Case{"name=a/b", "name \"a/b\" is not 1 to 64 letters, digits, '_', '.' or '-'"},
                    Case{"model.architecture.family=lama", "unknown family \"lama\"; did you mean \"llama\"?"},
                    Case{"data.train.sequence_length=256", "sequence_length 256 is beyond the model's 128 positions"},
                    Case{"batch.micro=5", "batch.global 24 is not divisible by micro 5 times dp 1"},
                    Case{"model.load=", "model.load is empty"},
                    Case{"optimizer=CausalLm", "CausalLm is of kind objective, optimizer takes AdamW, OneBitAdam, Sgd"},
                    Case{"objective=MaskedLm", "MaskedLm needs an encoder; llama is a decoder"},
                    Case{"evaluate.every=5", "evaluate.every is set and there is no data.validation"},
                    Case{"model.architecture.token_types=2", "token_types is for bert, not for llama"},
                    Case{"model.architecture.kv_heads=3", "kv_heads 3 does not divide heads 4"}));

TEST(Check, WhatDependsOnRanksIsRefusedBeforeTheyStart) {
  EXPECT_NE(refusal({}, 5).find("batch.global 24 is not divisible by dp 5"), std::string::npos) << refusal({}, 5);
  EXPECT_NE(refusal({"mesh.tp=3"}, 3).find("mesh.tp 3 does not divide model.architecture.heads 4"), std::string::npos);
  EXPECT_NE(refusal({"mesh.tp=4"}, 4).find("mesh.tp 4 does not divide model.architecture.kv_heads 2"),
            std::string::npos);
  EXPECT_NE(refusal({"mesh.tp=2"}, 3).find("mesh.tp 2 does not divide 3 ranks"), std::string::npos);
  EXPECT_NE(refusal({"mesh.replicas=3"}, 4).find("mesh.replicas 3 does not divide dp 4"), std::string::npos);
  EXPECT_NE(refusal({"mesh.dp=3"}, 2).find("takes 3 ranks and there are 2"), std::string::npos);
}

TEST(Check, RefusalsPointIntoTheFile) {
  EXPECT_NE(refusal({}, 5).find("r.textproto:6:9: batch.global"), std::string::npos) << refusal({}, 5);
}

TEST(Check, WhatIsMissingIsNamed) {
  Folder folder;
  auto missing = [&](const std::string& text) {
    LoadedRecipe loaded = read_recipe(folder.write("r.textproto", text), {}, {});
    return error_of([&] { check_recipe(loaded.recipe, 1, loaded.places); });
  };
  EXPECT_NE(missing("seed: 1").find("no objective is given"), std::string::npos);
  std::string no_model = kGood;
  no_model.replace(no_model.find("model"), no_model.find("objective") - no_model.find("model"), "");
  EXPECT_NE(missing(no_model).find("no model is given"), std::string::npos);
  EXPECT_NE(missing(std::string(kGood) + "parameter_group { pattern: \"(\" }").find("no regular expression"),
            std::string::npos);
}

}  // namespace
}  // namespace echelon
