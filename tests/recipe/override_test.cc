#include "runtime/recipe/overrides.h"

#include "runtime/recipe/parts.h"
#include "tests/recipe/folder.h"

namespace echelon {
namespace {

class Overrides : public testing::Test {
 protected:
  Recipe with(const std::string& override) {
    Recipe recipe = parse_recipe(kGood, "r");
    apply_override(recipe, override, places_);
    return recipe;
  }
  std::string error(const std::string& override) {
    return error_of([&] { with(override); });
  }
  Places places_{"r"};
};

TEST_F(Overrides, AreTypedByTheField) {
  EXPECT_EQ(with("steps=12").steps(), 12);
  EXPECT_EQ(with("mesh.tp=2").mesh().tp(), 2);
  EXPECT_EQ(with("clip_norm=0.5").clip_norm(), 0.5);
  EXPECT_EQ(with("precision=BF16").precision(), BF16);
  EXPECT_FALSE(with("data.shuffle=false").data().shuffle());
  EXPECT_EQ(with("name=a=b c").name(), "a=b c");
}

TEST_F(Overrides, ReachThroughParts) {
  EXPECT_EQ(message_text(*unpack_part(with("optimizer.learning_rate=3e-4").optimizer())),
            "learning_rate: 0.0003\nbeta2: 0.95\n");
  EXPECT_EQ(message_text(*unpack_part(with("data.train.path=x/y").data().train())),
            "path: \"x/y\"\nsequence_length: 64\n");
}

TEST_F(Overrides, NameAPartOrSpellItOut) {
  EXPECT_EQ(message_text(*unpack_part(with("schedule=WarmupCosine").schedule())), "");
  EXPECT_EQ(message_text(*unpack_part(with("optimizer=[echelon/Sgd] { momentum: 0 }").optimizer())), "momentum: 0\n");
}

TEST_F(Overrides, ReachElementsByIndexAndAddOnes) {
  Recipe recipe = with("parameter_group+=pattern: \"bias\"");
  apply_override(recipe, "parameter_group+=pattern: \"norm\"", places_);
  apply_override(recipe, "parameter_group.1.weight_decay=0.5", places_);
  ASSERT_EQ(recipe.parameter_group_size(), 2);
  EXPECT_EQ(recipe.parameter_group(0).pattern(), "bias");
  EXPECT_EQ(recipe.parameter_group(1).weight_decay(), 0.5);
  EXPECT_NE(error("parameter_group.0.pattern=x").find("a list of 0"), std::string::npos);
}

TEST_F(Overrides, ReplaceAnElementOfAListOfNumbers) {
  Recipe recipe = with("objective=[echelon/MaskedLm] { special_token_id: 1 special_token_id: 2 special_token_id: 3 }");
  apply_override(recipe, "objective.special_token_id.0=7", places_);
  apply_override(recipe, "objective.special_token_id+=9", places_);
  EXPECT_EQ(message_text(*unpack_part(recipe.objective())),
            "special_token_id: 7\nspecial_token_id: 2\nspecial_token_id: 3\nspecial_token_id: 9\n");
}

TEST_F(Overrides, AnUnknownPathHasNearestNames) {
  EXPECT_EQ(error("mesh.pt=2"), "recipe: mesh.pt=2: no field \"pt\" in MeshConfig; did you mean \"tp\" or \"pp\"?");
  EXPECT_EQ(error("optimizer.lerning_rate=1"),
            "recipe: optimizer.lerning_rate=1: no field \"lerning_rate\" in AdamW; did you mean \"learning_rate\"?");
}

TEST_F(Overrides, AWrongValueIsRefused) {
  EXPECT_EQ(error("steps=1.5"), "recipe: steps=1.5: steps takes a whole number: got \"1.5\"");
  EXPECT_EQ(error("steps="), "recipe: steps=: steps takes a whole number: got \"\"");
  EXPECT_EQ(error("steps=99999999999999999999"),
            "recipe: steps=99999999999999999999: steps takes a whole number: got \"99999999999999999999\"");
  EXPECT_EQ(error("clip_norm=x"), "recipe: clip_norm=x: clip_norm takes a number: got \"x\"");
  EXPECT_EQ(error("data.shuffle=maybe"), "recipe: data.shuffle=maybe: data.shuffle takes true or false: got \"maybe\"");
  EXPECT_EQ(error("precision=FP8"), "recipe: precision=FP8: precision takes FP32, BF16, FP16, FP64: got \"FP8\"");
  EXPECT_NE(error("optimizer=AdmW").find("did you mean \"AdamW\"?"), std::string::npos);
  EXPECT_NE(error("schedule.warmup_steps=3").find("holds no Part yet"), std::string::npos);
  EXPECT_NE(error("steps.more=3").find("steps has no fields"), std::string::npos);
  EXPECT_NE(error("steps+=3").find("is not a list"), std::string::npos);
}

TEST_F(Overrides, TheLastWins) {
  Folder folder;
  EXPECT_EQ(load_recipe(folder.write("r.textproto", kGood), {"steps=1", "steps=2"}, {}).steps(), 2);
}

TEST_F(Overrides, AreThePlaceOfTheirField) {
  with("mesh.pp=2");
  EXPECT_EQ(places_.of("mesh.pp"), "mesh.pp=2");
}

TEST_F(Overrides, PathsAreToldFromOtherArguments) {
  EXPECT_TRUE(is_override("mesh.tp=2"));
  EXPECT_TRUE(is_override("adapter+=x"));
  EXPECT_FALSE(is_override("runs/a=b/recipe.textproto"));
  EXPECT_FALSE(is_override("--steps=2"));
  EXPECT_FALSE(is_override("=2"));
}

}  // namespace
}  // namespace echelon
