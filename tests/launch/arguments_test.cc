#include "launch/options/arguments.h"

#include <gflags/gflags.h>
#include <gtest/gtest.h>

#include "cluster/base/error.h"
#include "launch/command/job.h"

namespace echelon {
namespace {

class Arguments : public testing::Test {
 protected:
  CommandLine parse(const std::vector<std::string>& arguments) { return parse_command_line(arguments); }
  gflags::FlagSaver saved_;
};

TEST_F(Arguments, FlagsNamesAndOverridesMayBeMixed) {
  CommandLine line = parse({"train", "steps=5", "--out=DIR", "tiny", "--ranks", "3", "mesh.tp=2", "--dry_run"});
  EXPECT_EQ(line.names, std::vector<std::string>{"tiny"});
  EXPECT_EQ(line.overrides, (std::vector<std::string>{"steps=5", "mesh.tp=2"}));
  TrainArguments train = train_arguments(line);
  EXPECT_EQ(train.out, "DIR");
  EXPECT_EQ(train.ranks, 3);
  EXPECT_TRUE(train.dry_run);
}

TEST_F(Arguments, HyphensAndNoAreUnderstood) {
  parse({"train", "tiny", "--dry_run"});
  CommandLine line = parse({"train", "tiny", "--nodry-run", "--max-restarts=1"});
  EXPECT_FALSE(train_arguments(line).dry_run);
  EXPECT_EQ(start_arguments().max_restarts, 1);
}

TEST_F(Arguments, WhatARankIsGivenReadsBackTheSame) {
  CommandLine line = parse({"train", "tiny", "--out=a b", "--ranks=2", "--resume=never", "name=x y"});
  std::vector<std::string> passed = rank_arguments_of(line);
  EXPECT_EQ(passed, (std::vector<std::string>{"train", "--out=a b", "--resume=never", "--", "tiny", "name=x y"}));
  EXPECT_EQ(parse(passed).overrides, line.overrides);
}

TEST_F(Arguments, PromptIdsAreRead) {
  CommandLine line = parse({"generate", "--model=m", "--prompt_ids=1,22,333"});
  EXPECT_EQ(generate_arguments(line).prompt_ids, (std::vector<int64_t>{1, 22, 333}));
  for (const char* wrong : {"1,", ",1", "1,,2", "-1", "x", "1 2"}) {
    CommandLine bad = parse({"generate", "--model=m", std::string("--prompt_ids=") + wrong});
    EXPECT_THROW(generate_arguments(bad), Error) << wrong;
  }
}

TEST_F(Arguments, ForwardTakesOnlyLayouts) {
  CommandLine line = parse({"forward", "--model=m", "--input=i", "--output=o", "mesh.tp=2"});
  EXPECT_EQ(forward_arguments(line).layout.mesh().tp(), 2);
  line.overrides = {"steps=3"};
  EXPECT_THROW(forward_arguments(line), Error);
}

TEST_F(Arguments, SizesHaveUnits) {
  EXPECT_EQ(parse_bytes("5GB", "--x"), 5'000'000'000);
  EXPECT_EQ(parse_bytes("1GiB", "--x"), 1 << 30);
  EXPECT_EQ(parse_bytes("1000", "--x"), 1000);
  for (const char* wrong : {"", "GB", "5 GB", "-5GB", "5XB", "nan", "1e30GB"})
    EXPECT_THROW(parse_bytes(wrong, "--x"), Error) << wrong;
}

}  // namespace
}  // namespace echelon
