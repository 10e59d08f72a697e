#include "runtime/recipe/recipe_file.h"

#include <cstdlib>

#include "runtime/recipe/changes.h"
#include "runtime/recipe/parts.h"
#include "runtime/recipe/resolve.h"
#include "tests/recipe/folder.h"

namespace echelon {
namespace {

RecipeFolders own_recipes() { return {std::string(std::getenv("ECHELON_SOURCE")) + "/launch/recipes"}; }

std::string text_of_part(const google::protobuf::Any& any) { return message_text(*unpack_part(any)); }

class Parents : public testing::Test {
 protected:
  Recipe load(const std::string& name) { return load_recipe(name, {}, {folder_.path()}); }
  std::string error(const std::string& name) {
    return error_of([&] { load(name); });
  }
  Folder folder_;
};

TEST_F(Parents, AScalarReplaces) {
  folder_.write("base.textproto", "steps: 5 seed: 3");
  folder_.write("child.textproto", "parent: \"base\" steps: 7");
  EXPECT_EQ(load("child").steps(), 7);
  EXPECT_EQ(load("child").seed(), 3);
}

TEST_F(Parents, AMessageMergesFieldByField) {
  folder_.write("base.textproto", "batch { global: 48 micro: 4 }");
  folder_.write("child.textproto", "parent: \"base\" batch { micro: 2 }");
  EXPECT_EQ(load("child").batch().global(), 48);
  EXPECT_EQ(load("child").batch().micro(), 2);
}

TEST_F(Parents, APartOfTheSameTypeMergesAndOfAnotherReplaces) {
  folder_.write("base.textproto", "optimizer { [echelon/AdamW] { learning_rate: 0.5 beta1: 0.7 } }");
  folder_.write("same.textproto", "parent: \"base\" optimizer { [echelon/AdamW] { learning_rate: 0.25 } }");
  folder_.write("other.textproto", "parent: \"base\" optimizer { [echelon/Sgd] {} }");
  EXPECT_EQ(text_of_part(load("same").optimizer()),
            "learning_rate: 0.25\nbeta1: 0.7\nbeta2: 0.999\nepsilon: 1e-08\nweight_decay: 0.01\n");
  EXPECT_EQ(text_of_part(load("other").optimizer()),
            "learning_rate: 0.01\nmomentum: 0.9\nnesterov: false\nweight_decay: 0\n");
}

TEST_F(Parents, ARepeatedFieldReplaces) {
  folder_.write("base.textproto", "parameter_group { pattern: \"a\" } parameter_group { pattern: \"b\" }");
  folder_.write("child.textproto", "parent: \"base\" parameter_group { pattern: \"c\" }");
  ASSERT_EQ(load("child").parameter_group_size(), 1);
  EXPECT_EQ(load("child").parameter_group(0).pattern(), "c");
}

TEST_F(Parents, AnotherModelSourceReplaces) {
  folder_.write("base.textproto", "model { architecture { family: \"gpt2\" } }");
  folder_.write("child.textproto", "parent: \"base\" model { load: \"DIR\" }");
  EXPECT_EQ(load("child").model().load(), "DIR");
}

TEST_F(Parents, AreFoundBesideTheFileAndDeep) {
  folder_.write("a/one.textproto", "seed: 11");
  folder_.write("a/two.textproto", "parent: \"one\"");
  std::string three = folder_.write("a/three.textproto", "parent: \"two.textproto\"");
  EXPECT_EQ(load_recipe(three, {}, {}).seed(), 11);
}

TEST_F(Parents, ACircleIsNamed) {
  folder_.write("a.textproto", "parent: \"b\"");
  folder_.write("b.textproto", "parent: \"a\"");
  std::string sentence = error("a");
  EXPECT_NE(sentence.find("parents form a circle"), std::string::npos) << sentence;
  EXPECT_NE(sentence.find("b.textproto -> "), std::string::npos) << sentence;
}

TEST_F(Parents, AMissingOneIsNamedWithTheChain) {
  folder_.write("base.textproto", "parent: \"nowhere\"");
  folder_.write("child.textproto", "\nparent: \"base\"");
  std::string sentence = error("child");
  EXPECT_NE(sentence.find("base.textproto:1:1: no parent \"nowhere\" (chain: "), std::string::npos) << sentence;
}

TEST_F(Parents, MayNotLeaveTheFolder) {
  folder_.write("child.textproto", "parent: \"../../etc/passwd\"");
  EXPECT_NE(error("child").find("leaves the recipe's folder"), std::string::npos);
  folder_.write("absolute.textproto", "parent: \"/etc/passwd\"");
  EXPECT_NE(error("absolute").find("leaves the recipe's folder"), std::string::npos);
}

TEST_F(Parents, AnErrorInAParentPointsIntoTheParent) {
  folder_.write("base.textproto", "seed: 1\nsteps: x");
  folder_.write("child.textproto", "parent: \"base\"");
  EXPECT_NE(error("child").find("base.textproto:2:8"), std::string::npos) << error("child");
}

TEST_F(Parents, AnUnknownRecipeHasNearestNames) {
  folder_.write("tiny_decoder.textproto", "");
  EXPECT_EQ(error("tiny_decodr"),
            "recipe: tiny_decodr: no file and no recipe of that name; did you mean \"tiny_decoder\"?");
}

TEST(Resolve, SpellsOutEveryDefaultAlsoOfParts) {
  Folder folder;
  std::string text = recipe_text(load_recipe(folder.write("r.textproto", kGood), {}, {}));
  for (const char* line : {"steps: 1000", "clip_norm: 0", "precision: FP32", "epsilon: 1e-08", "[echelon/Constant]",
                           "zero: 3", "recompute: NONE", "keep: 3", "shuffle: true", "reproducible: false", "tp: 1",
                           "feed_forward: 192", "head_width: 16", "rope_theta: 10000", "tied: false"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << " is missing in\n" << text;
  }
}

TEST(Resolve, ResolvedTextLoadsAsItself) {
  for (const std::string& name : recipe_names(own_recipes())) {
    Folder folder;
    std::string text = recipe_text(load_recipe(name, {}, own_recipes()));
    std::string file = folder.write("resolved.textproto", text);
    EXPECT_EQ(recipe_text(load_recipe(file, {}, {})), text) << name;
  }
}

TEST(OwnRecipes, AreAllThereAndPassTheChecks) {
  std::vector<std::string> names = recipe_names(own_recipes());
  for (const char* name : {"base/tiny_decoder_clm", "base/tiny_encoder_mlm", "quickstart_decoder", "quickstart_encoder",
                           "gpt2_124m", "llama_1b", "bert_base"}) {
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
  for (const std::string& name : names) {
    LoadedRecipe loaded = read_recipe(name, {}, own_recipes());
    EXPECT_EQ(error_of([&] { check_recipe(loaded.recipe, 2, loaded.places); }), "") << name;
    EXPECT_FALSE(loaded.recipe.description().empty()) << name;
  }
}

TEST(OwnRecipes, TheTinyOnesRunOnOneToFourRanks) {
  for (const char* name : {"base/tiny_decoder_clm", "base/tiny_encoder_mlm"}) {
    for (int ranks = 1; ranks <= 4; ++ranks) check_recipe(load_recipe(name, {}, own_recipes()), ranks, name);
  }
}

TEST(Changes, TheFreeFieldsMayChange) {
  Folder folder;
  std::string file = folder.write("r.textproto", kGood);
  Recipe before = load_recipe(file, {}, {});
  Recipe after = load_recipe(
      file, {"steps=9", "checkpoint.every=1", "evaluate.batches=3", "mesh.tp=2", "sharding.zero=1", "batch.micro=1"},
      {});
  EXPECT_EQ(first_forbidden_change(before, after), "");
}

TEST(Changes, OthersAreNamed) {
  Folder folder;
  std::string file = folder.write("r.textproto", kGood);
  Recipe before = load_recipe(file, {}, {});
  auto change = [&](const std::string& override) {
    return first_forbidden_change(before, load_recipe(file, {override}, {}));
  };
  EXPECT_EQ(change("optimizer.learning_rate=0.5"), "optimizer.learning_rate");
  EXPECT_EQ(change("optimizer=Sgd"), "optimizer");
  EXPECT_EQ(change("batch.global=48"), "batch.global");
  EXPECT_EQ(change("model.architecture.layers=3"), "model.architecture.layers");
  EXPECT_EQ(change("model.load=DIR"), "model.load");
  EXPECT_EQ(change("data.train.path=elsewhere"), "data.train.path");
  EXPECT_EQ(change("parameter_group+=pattern: \"x\""), "parameter_group");
}

}  // namespace
}  // namespace echelon
