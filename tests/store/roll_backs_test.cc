#include "runtime/store/roll_backs.h"

#include "tests/cluster/testing.h"

namespace echelon {
namespace {

constexpr int64_t kBatch = 10;

RollBacks roll_backs(const std::vector<std::pair<int64_t, int64_t>>& from_to) {
  RollBacks all;
  for (auto [from, to] : from_to) all.add(from, to, "why", kBatch);
  return all;
}

TEST(RollBacks, NoneLeavesTheDataAsTheyAre) {
  EXPECT_EQ(RollBacks().first_sample(1, kBatch), 0);
  EXPECT_EQ(RollBacks().first_sample(8, kBatch), 70);
}

TEST(RollBacks, WhatLedThereIsLeftOut) {
  RollBacks one = roll_backs({{8, 5}});
  EXPECT_EQ(one.first_sample(5, kBatch), 40);
  EXPECT_EQ(one.first_sample(6, kBatch), 80);
  EXPECT_EQ(one.first_sample(9, kBatch), 110);
  EXPECT_EQ(one.all()[0].first_sample, 50);
  EXPECT_EQ(one.all()[0].samples, 30);
}

TEST(RollBacks, ASecondOneGoesOnWhereTheFirstHadCome) {
  RollBacks later = roll_backs({{8, 5}, {12, 9}});
  EXPECT_EQ(later.first_sample(9, kBatch), 110);
  EXPECT_EQ(later.first_sample(10, kBatch), 150);  // 120 .. 149 are left out
  RollBacks earlier = roll_backs({{8, 5}, {7, 2}});
  EXPECT_EQ(earlier.first_sample(2, kBatch), 10);
  EXPECT_EQ(earlier.first_sample(3, kBatch), 100);  // 20 .. 99
  EXPECT_EQ(earlier.first_sample(6, kBatch), 130);
}

TEST(RollBacks, NoPositionIsTakenTwiceByWhatStays) {
  RollBacks all = roll_backs({{8, 5}, {7, 2}, {20, 14}, {16, 14}});
  int64_t next = 0;
  for (int64_t step = 1; step <= 40; ++step) {
    EXPECT_GE(all.first_sample(step, kBatch), next) << step;
    next = all.first_sample(step, kBatch) + kBatch;
  }
}

TEST(RollBacks, OneStepIsTheFirstBehindIt) {
  RollBacks one = roll_backs({{8, 5}});
  EXPECT_FALSE(one.before(5));
  ASSERT_TRUE(one.before(6));
  EXPECT_EQ(one.before(6)->from_step, 8);
  EXPECT_FALSE(one.before(7));
}

TEST(RollBacks, GoToTheNewestStepBeforeTheFault) {
  EXPECT_EQ(RollBacks().step_to_go_back_to({3, 6, 9}, 9), 6);
  EXPECT_EQ(RollBacks().step_to_go_back_to({3, 6, 9}, 10), 9);
  EXPECT_EQ(RollBacks().step_to_go_back_to({3, 6, 9}, 3), std::nullopt);
  EXPECT_EQ(RollBacks().step_to_go_back_to({}, 3), std::nullopt);
}

TEST(RollBacks, GoOneFurtherWhereTheLastOneWasInVain) {
  RollBacks one = roll_backs({{8, 6}});
  EXPECT_EQ(one.step_to_go_back_to({3, 6}, 7), 3);
  EXPECT_EQ(one.step_to_go_back_to({6}, 7), 6);
  EXPECT_EQ(one.step_to_go_back_to({3, 6, 9}, 11), 9);
}

TEST(RollBacks, AreReadAsTheyWereWritten) {
  TemporaryFolder folder;
  EXPECT_TRUE(RollBacks::read(folder.path()).all().empty());
  RollBacks before = roll_backs({{8, 5}, {12, 9}});
  write_file_atomically(folder.at(kRollBacksFile), before.text());
  EXPECT_EQ(RollBacks::read(folder.path()).text(), before.text());
  EXPECT_REFUSED(RollBacks::parse("{}", "x"), storage, "is not a list");
  EXPECT_REFUSED(RollBacks::parse(R"([{"from_step": -1}])", "x"), storage, "from_step");
}

}  // namespace
}  // namespace echelon
