#include "cluster/base/text.h"

#include <gtest/gtest.h>

namespace echelon {
namespace {

const std::vector<std::string> fields = {"learning_rate", "weight_decay", "layers", "width", "warmup_steps", "steps"};

TEST(Text, NearestNamesComeFirstAndFarOnesNotAtAll) {
  EXPECT_EQ(nearest("lerning_rate", fields), std::vector<std::string>{"learning_rate"});
  EXPECT_EQ(nearest("layres", fields), std::vector<std::string>{"layers"});
  EXPECT_TRUE(nearest("frobnicate", fields).empty());
}

TEST(Text, AtMostTwoAreOffered) {
  EXPECT_EQ(did_you_mean("step", {"steps", "stop", "stem", "other"}), "did you mean \"steps\" or \"stop\"?");
  EXPECT_EQ(did_you_mean("rnk", {"rank", "alpha"}), "did you mean \"rank\"?");
  EXPECT_EQ(did_you_mean("zzz", fields), "");
}

TEST(Text, AHostileWordOfMegabytesCostsNothing) {
  EXPECT_TRUE(nearest(std::string(10'000'000, 'a'), fields).empty());
  EXPECT_TRUE(nearest("a", {std::string(10'000'000, 'a')}).empty());
}

TEST(Text, NumbersHaveThreeDigitsAndAUnit) {
  EXPECT_EQ(human_bytes(512), "512 B");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(int64_t{613} << 27), "76.6 GiB");
  EXPECT_EQ(human_count(950), "950");
  EXPECT_EQ(human_count(41234), "41.2k");
  EXPECT_EQ(human_count(124.4e6), "124M");
  EXPECT_EQ(human_count(8.03e9), "8.03B");
}

TEST(Text, TimesAreSaidAsPeopleDo) {
  EXPECT_EQ(human_seconds(0.412), "0.41 s");
  EXPECT_EQ(human_seconds(12.34), "12.3 s");
  EXPECT_EQ(human_seconds(245), "4m05s");
  EXPECT_EQ(human_seconds(5 * 3600 + 12 * 60), "5h12m");
  EXPECT_EQ(human_seconds(3 * 86400 + 4 * 3600), "3d04h");
}

}  // namespace
}  // namespace echelon
