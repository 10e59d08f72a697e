#include "cluster/base/pattern.h"

#include <chrono>

#include "tests/cluster/testing.h"

namespace echelon {
namespace {

TEST(Pattern, MatchesAsECMAScriptDoes) {
  Pattern pattern(R"(layers\.\d{1,2}\.(attention|feed_forward)\..*)", "here");
  EXPECT_TRUE(pattern.matches_whole("layers.12.attention.query.weight"));
  EXPECT_FALSE(pattern.matches_whole("a.layers.12.attention.query.weight"));
  EXPECT_TRUE(pattern.matches_in("a.layers.12.attention.query.weight"));
  EXPECT_FALSE(pattern.matches_in("layers.123.attention.query"));
}

TEST(Pattern, NeverTakesExponentialTime) {
  auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(Pattern("((a*)*)*b", "here").matches_whole(std::string(1000, 'a')));
  EXPECT_FALSE(Pattern("(a|a|aa)+b", "here").matches_in(std::string(1000, 'a')));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(Pattern, OfTheLargestSizeFitsTheStack) {
  EXPECT_FALSE(Pattern("(a?){900}b", "here").matches_whole("c"));
  EXPECT_FALSE(Pattern(std::string(499, '(') + "a?" + std::string(499, ')'), "here").matches_whole("c"));
}

TEST(Pattern, RefusesWhatIsNoneOrTooMuch) {
  EXPECT_REFUSED(Pattern("(", "here"), recipe, "here: \"(\" is no regular expression");
  EXPECT_REFUSED(Pattern("(a)\\1", "here"), recipe, "is no regular expression");
  EXPECT_REFUSED(Pattern(std::string(1001, 'a'), "here"), recipe, "a pattern is too long: got 1001, expected at most");
  EXPECT_REFUSED(Pattern("((a{99}){99}){99}", "here", Error::Kind::input), input, "repeats too much");
  EXPECT_REFUSED(Pattern("a{2,99999999999999999999}", "here"), recipe, "repeats too much");
}

}  // namespace
}  // namespace echelon
