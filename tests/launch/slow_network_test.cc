#include "launch/command/slow_network.h"

#include <gtest/gtest.h>

namespace echelon {
namespace {

/// Two ranks on two machines, seen twice a second. A step computes, then both are in a collective.
class Job {
 public:
  double compute_seconds = 1, network_seconds = 0.2;
  bool other_is_late = false;  // the second rank is outside while the first one waits

  std::vector<std::string> run(double seconds) {
    std::vector<std::string> said;
    for (double end = now_ + seconds; now_ < end;) {
      now_ += 0.1;
      in_step_ += 0.1;
      if (in_step_ >= compute_seconds + network_seconds) {
        in_step_ = 0;
        ++step_;
      }
      if (++ticks_ % 5 == 0) {
        if (auto words = network_.look(now_, views())) said.push_back(*words);
      }
    }
    return said;
  }
  void sleep(double seconds) { now_ += seconds; }
  Phase phase = Phase::compute;

 private:
  std::vector<RankView> views() const {
    bool inside = in_step_ >= compute_seconds;
    RankView view{.progress = {.phase = phase, .step = step_}, .inside = inside};
    RankView other = view;
    other.rank = 1;
    other.host = "n2";
    other.inside = inside && !other_is_late;
    return {view, other};
  }

  SlowNetwork network_;
  double now_ = 1000, in_step_ = 0;
  int64_t step_ = 1;
  int ticks_ = 0;
};

TEST(SlowNetwork, OneThatStaysAsItIsIsLeftAlone) { EXPECT_TRUE(Job().run(600).empty()); }

TEST(SlowNetwork, OneThatBecomesSlowIsNamedWithWhatItCosts) {
  Job job;
  job.run(60);
  job.network_seconds = 3;
  auto said = job.run(50);
  ASSERT_EQ(said.size(), 1u);
  EXPECT_TRUE(said[0].starts_with("the network has become slow, or processors are busy")) << said[0];
  EXPECT_NE(said[0].find(" s at best; for "), std::string::npos) << said[0];
}

TEST(SlowNetwork, OnceAMinute) {
  Job job;
  job.run(60);
  job.network_seconds = 3;
  EXPECT_EQ(job.run(180).size(), 3u);
}

TEST(SlowNetwork, SlowComputingIsNotTheNetworks) {
  Job job;
  job.run(60);
  job.compute_seconds = 4;
  EXPECT_TRUE(job.run(120).empty());
}

TEST(SlowNetwork, ALateRankIsNotTheNetwork) {
  Job job;
  job.run(60);
  job.network_seconds = 3;
  job.other_is_late = true;
  EXPECT_TRUE(job.run(120).empty());
}

TEST(SlowNetwork, SavesAndEvaluationsAreNoSteps) {
  Job job;
  job.run(60);
  job.network_seconds = 3;
  job.phase = Phase::save;
  EXPECT_TRUE(job.run(120).empty());
}

TEST(SlowNetwork, WhatALauncherThatWasStoppedHasNotSeenDoesNotCount) {
  Job job;
  job.run(60);
  job.sleep(300);
  EXPECT_TRUE(job.run(120).empty());
}

}  // namespace
}  // namespace echelon
