#include "launch/command/stragglers.h"

#include <gtest/gtest.h>

namespace echelon {
namespace {

/// Ranks that gather every 0.1 s, each as late as it is; looked at twice a second.
class Job {
 public:
  explicit Job(std::vector<double> late, std::string group = "dp") : late_(std::move(late)), group_(std::move(group)) {
    for (int rank = 0; rank < std::ssize(late_); ++rank)
      ranks_.push_back({.view = {.rank = rank, .progress = {.phase = Phase::compute}}});
  }

  /// All that is said within `seconds`.
  std::vector<std::string> run(double seconds) {
    std::vector<std::string> said;
    for (int looks = 0; looks < 2 * seconds; ++looks) {
      for (int i = 0; i < 5; ++i) gather();
      if (auto words = stragglers_.look(now_, ranks_)) said.push_back(*words);
    }
    return said;
  }
  void set(int rank, double late) { late_.at(static_cast<size_t>(rank)) = late; }
  SeenRank& rank(int rank) { return ranks_.at(static_cast<size_t>(rank)); }

 private:
  void gather() {
    ++sequence_;
    for (int rank = 0; rank < std::ssize(late_); ++rank) {
      auto& entries = ranks_[static_cast<size_t>(rank)].collectives;
      entries.push_back({.sequence = sequence_,
                         .group = group_,
                         .op = "all_gather",
                         .entered_seconds = now_ + late_[static_cast<size_t>(rank)]});
      if (entries.size() > 20) entries.erase(entries.begin());
    }
    now_ += 0.1;
  }

  std::vector<double> late_;
  std::string group_;
  std::vector<SeenRank> ranks_;
  Stragglers stragglers_;
  int64_t sequence_ = 0;
  double now_ = 1000;
};

TEST(Stragglers, EqualRanksAreLeftAlone) { EXPECT_TRUE(Job({0, 0.001, 0.002, 0}).run(120).empty()); }

TEST(Stragglers, ALateRankIsNamedWithWhatItCosts) {
  auto said = Job({0.001, 0, 0.05, 0}).run(15);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_TRUE(said[0].starts_with("rank 2 holds up the others: they waited for it 5")) << said[0];
}

TEST(Stragglers, ASlowLoaderIsNamedAsSuch) {
  Job job({0, 0.05});
  job.rank(1).view.progress.phase = Phase::input;
  auto said = job.run(15);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_TRUE(said[0].ends_with(" of 10 s, mostly at its input")) << said[0];
}

TEST(Stragglers, WhatARankInsideACollectiveWasAtDoesNotCount) {
  Job job({0, 0.05});
  job.rank(1).view.progress.phase = Phase::input;
  job.rank(1).view.inside = true;
  auto said = job.run(15);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_TRUE(said[0].ends_with(" of 10 s")) << said[0];
}

TEST(Stragglers, OnceAMinute) {
  EXPECT_EQ(Job({0, 0.05}).run(59).size(), 1u);
  EXPECT_EQ(Job({0, 0.05}).run(130).size(), 2u);
}

TEST(Stragglers, TwoThatAreLateAreNoStraggler) { EXPECT_TRUE(Job({0, 0.05, 0.051, 0}).run(60).empty()); }

TEST(Stragglers, WhoIsLateNowAndThenIsNot) { EXPECT_TRUE(Job({0, 0.01}).run(60).empty()); }

TEST(Stragglers, AnotherOneIsNamedAtOnce) {
  Job job({0, 0.05});
  EXPECT_EQ(job.run(15).size(), 1u);
  job.set(0, 0.05);
  job.set(1, 0);
  EXPECT_EQ(job.run(25).size(), 1u);
}

TEST(Stragglers, WhoWritesACheckpointIsWaitedForInTheWorld) {
  EXPECT_TRUE(Job({0.05, 0}, "world").run(60).empty());
}

TEST(Stragglers, OneRankHoldsUpNobody) { EXPECT_TRUE(Job({0.05}).run(60).empty()); }

}  // namespace
}  // namespace echelon
