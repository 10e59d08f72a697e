#include "runtime/recipe/text.h"

#include "cluster/base/registry.h"
#include "runtime/optimizers/adamw.pb.h"
#include "tests/recipe/folder.h"

namespace echelon {
namespace {

std::string parse_error(const std::string& text) {
  return error_of([&] { parse_recipe(text, "r.textproto"); });
}

TEST(RecipeText, ShortPartNamesMeanMessagesOfThePackage) {
  Recipe recipe = parse_recipe("optimizer { [echelon/AdamW] { beta2: 0.95 } }", "r");
  EXPECT_EQ(part_name(recipe.optimizer()), "echelon.AdamW");
  AdamW options;
  ASSERT_TRUE(options.ParseFromString(recipe.optimizer().value()));
  EXPECT_EQ(options.beta2(), 0.95);
}

TEST(RecipeText, AnUnknownFieldIsNamedWithItsPositionAndTheNearestName) {
  EXPECT_EQ(parse_error("seed: 1\n  stpes: 3\n"),
            "recipe: r.textproto:2:3: no field \"stpes\" in Recipe; did you mean \"steps\"?");
}

TEST(RecipeText, AnUnknownFieldOfAPartIsNamedWithItsPosition) {
  EXPECT_EQ(parse_error("optimizer {\n [echelon/AdamW] { beta3: 1 }\n}"),
            "recipe: r.textproto:2:20: no field \"beta3\" in AdamW; did you mean \"beta1\" or \"beta2\"?");
}

TEST(RecipeText, AnUnknownPartIsNamedWithTheNearest) {
  std::string error = parse_error("optimizer { [echelon/AdmaW] {} }");
  EXPECT_TRUE(error.starts_with("recipe: r.textproto:1:")) << error;
  EXPECT_NE(error.find("no Part is named \"AdmaW\"; did you mean \"AdamW\"?"), std::string::npos) << error;
}

TEST(RecipeText, AWrongEnumValueListsThoseThatAreRight) {
  EXPECT_EQ(parse_error("precision: FP31"),
            "recipe: r.textproto:1:12: \"FP31\" is no value of precision; it takes FP32, BF16, FP16, FP64");
}

TEST(RecipeText, AWrongTypeHasAPosition) {
  EXPECT_TRUE(parse_error("steps: \"many\"").starts_with("recipe: r.textproto:1:8: "));
}

TEST(RecipeText, AFieldTwiceIsRefused) {
  EXPECT_NE(parse_error("steps: 1\nsteps: 2").find("r.textproto:2:"), std::string::npos);
}

TEST(RecipeText, ManyNestedBracesAreRefusedInsteadOfOverflowingTheStack) {
  std::string deep;
  for (int i = 0; i < 15000; ++i) deep += "a{";
  EXPECT_FALSE(parse_error(deep).empty());
  std::string known;  // a Part in itself, as deep as it likes
  for (int i = 0; i < 2000; ++i) known += "model { architecture { ";
  EXPECT_FALSE(parse_error(known).empty());
  std::string any;
  for (int i = 0; i < 2000; ++i) any += "objective { [type.googleapis.com/google.protobuf.Any] { ";
  EXPECT_FALSE(parse_error(any).empty());
}

TEST(RecipeText, FourMebibytesAreTheMost) {
  EXPECT_NE(parse_error("name: \"" + std::string(5 << 20, 'a') + "\"").find("at most 4 MiB"), std::string::npos);
}

TEST(RecipeText, ParsesBackToItself) {
  Recipe recipe = parse_recipe(kGood, "r");
  EXPECT_EQ(recipe_text(parse_recipe(recipe_text(recipe), "again")), recipe_text(recipe));
}

TEST(RecipeText, PlacesReachIntoParts) {
  Places places("r");
  parse_recipe("seed: 1\nbatch {\n  micro: 2\n}\noptimizer {\n  [echelon/AdamW] {\n    beta2: 0.9\n  }\n}",
               "r.textproto", &places);
  EXPECT_EQ(places.of("batch.micro"), "r.textproto:3:3");
  EXPECT_EQ(places.of("batch.global"), "r.textproto:2:1");
  EXPECT_EQ(places.of("optimizer.beta2"), "r.textproto:7:5");
  EXPECT_EQ(places.of("steps"), "r");
}

}  // namespace
}  // namespace echelon
