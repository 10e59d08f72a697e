#include "launch/command/liveness.h"

#include <functional>

#include <gtest/gtest.h>

namespace echelon {
namespace {

/// Ranks that take a step of `step_seconds`, seen twice a second.
class Job {
 public:
  explicit Job(int ranks, double step_seconds = 0.5) : step_seconds_(step_seconds) {
    for (int rank = 0; rank < ranks; ++rank) views_.push_back({.rank = rank});
  }

  RankView& rank(int rank) { return views_.at(static_cast<size_t>(rank)); }
  void enter(Phase phase) {
    for (RankView& view : views_) view.progress.phase = phase;
  }
  /// The first finding within `seconds`, during which the ranks take steps or stand still.
  std::optional<Hang> run(double seconds) {
    return look(seconds, [this] {
      enter(Phase::compute);
      for (RankView& view : views_) {
        view.progress.step = static_cast<int64_t>(now_ / step_seconds_) + 1;
        if (view.progress.first_step == 0) view.progress.first_step = view.progress.step;
      }
    });
  }
  std::optional<Hang> stand_still(double seconds) {
    since_ = now_;
    return look(seconds, [] {});
  }
  void sleep(double seconds) { now_ += seconds; }
  double found_after() const { return now_ - since_; }

 private:
  std::optional<Hang> look(double seconds, const std::function<void()>& act) {
    for (double end = now_ + seconds; now_ < end;) {
      now_ += 0.5;
      act();
      if (auto hang = liveness_.look(now_, views_)) return hang;
    }
    return {};
  }

  double step_seconds_, now_ = 1000, since_ = 0;
  std::vector<RankView> views_;
  Liveness liveness_;
};

void wait_in_collective(RankView& view) {
  view.inside = true;
  view.group = "world";
  view.sequence = 17;
  view.completed = {{"world", 16}};
  view.collective = "all_reduce \"losses and norm\", number 17 of group world";
}

TEST(Liveness, RanksThatComeOnAreLeftAlone) { EXPECT_FALSE(Job(4).run(3600)); }

TEST(Liveness, AStoppedRankIsNamedWithinTenSeconds) {
  Job job(4);
  job.run(60);
  for (int rank : {0, 1, 3}) wait_in_collective(job.rank(rank));
  job.rank(2).process_state = 'T';
  auto hang = job.stand_still(60);
  ASSERT_TRUE(hang);
  EXPECT_LE(job.found_after(), 10);
  EXPECT_EQ(hang->rank, 2);
  EXPECT_TRUE(hang->what.starts_with("stopped by a signal in compute of step ")) << hang->what;
  EXPECT_NE(hang->what.find("; rank 0 waits in all_reduce"), std::string::npos) << hang->what;
  EXPECT_EQ(hang->ranks.size(), 4u);
}

TEST(Liveness, AStoppedRankIsNamedAsFastInSlowPhases) {
  for (Phase phase : {Phase::start, Phase::save, Phase::evaluate, Phase::finish}) {
    Job job(2);
    job.run(60);
    job.enter(phase);
    job.rank(1).process_state = 'T';
    auto hang = job.stand_still(10);
    ASSERT_TRUE(hang) << name_of(phase);
    EXPECT_EQ(hang->rank, 1);
  }
}

TEST(Liveness, ARankThatIsStoppedAtEveryLookAndComesOnIsSlowAndNotStopped) {
  Job job(2);
  job.run(60);
  job.rank(1).process_state = 'T';
  for (int i = 0; i < 60; ++i) {
    ++job.rank(1).progress.beats;
    EXPECT_FALSE(job.stand_still(0.5));
  }
}

TEST(Liveness, AStoppedRankThatGoesOnInTimeIsForgiven) {
  Job job(2);
  job.run(60);
  job.rank(1).process_state = 'T';
  EXPECT_FALSE(job.stand_still(5));
  job.rank(1).process_state = 'R';
  EXPECT_FALSE(job.run(60));
}

TEST(Liveness, ASilentRankIsNamedWithItsMachine) {
  for (bool neighbour_heard : {true, false}) {
    Job job(4);
    for (int rank : {2, 3}) job.rank(rank).host = "n2";
    job.run(60);
    job.rank(3).process_state = '?';
    if (!neighbour_heard) job.rank(2).process_state = '?';
    auto hang = job.stand_still(60);
    ASSERT_TRUE(hang);
    EXPECT_LE(job.found_after(), 2);  // it counted as silent after 3 s
    EXPECT_EQ(hang->host, "n2");
    EXPECT_EQ(hang->rank, neighbour_heard ? 3 : 2);
    const char* why = neighbour_heard ? "it was stopped" : "its machine or the link to it is down";
    EXPECT_NE(hang->what.find(why), std::string::npos) << hang->what;
    EXPECT_TRUE(hang->ranks.back().starts_with("rank 3 on n2: compute of step ")) << hang->ranks.back();
  }
}

TEST(Liveness, ARankThatIsHeardOfAgainIsForgiven) {
  Job job(2);
  job.run(60);
  job.rank(1).process_state = '?';
  EXPECT_FALSE(job.stand_still(1));
  job.rank(1).process_state = 'R';
  EXPECT_FALSE(job.run(60));
}

TEST(Liveness, ARankThatSpinsIsNamedWithinTenSecondsAndTheWaitingOnesAreNot) {
  Job job(3);
  job.run(60);
  for (int rank : {0, 2}) wait_in_collective(job.rank(rank));
  auto hang = job.stand_still(60);
  ASSERT_TRUE(hang);
  EXPECT_LE(job.found_after(), 10);
  EXPECT_EQ(hang->rank, 1);
  EXPECT_TRUE(hang->what.starts_with("alive, not advancing in compute of step ")) << hang->what;
}

TEST(Liveness, StepsBeforeTheFirstLookCountAsDone) {
  Job job(2);
  for (int rank : {0, 1}) job.rank(rank).progress = {.phase = Phase::compute, .step = 47, .first_step = 40};
  wait_in_collective(job.rank(0));
  auto hang = job.stand_still(60);
  ASSERT_TRUE(hang);
  EXPECT_LE(job.found_after(), 10);
  EXPECT_EQ(hang->rank, 1);
}

TEST(Liveness, TheFirstStepsMayTakeTheirTime) {
  Job job(2);
  for (int rank : {0, 1}) job.rank(rank).progress = {.phase = Phase::compute, .step = 41, .first_step = 40};
  EXPECT_FALSE(job.stand_still(300));
}

TEST(Liveness, WhereEveryRankWaitsNoneIsBlamed) {
  Job job(2);
  job.run(60);
  for (int rank : {0, 1}) wait_in_collective(job.rank(rank));
  auto hang = job.stand_still(60);
  ASSERT_TRUE(hang);
  EXPECT_EQ(hang->rank, -1);
}

TEST(Liveness, ARankThatStaysInACollectiveThatAllOthersHaveLeftIsNamed) {
  Job job(3);
  job.run(60);
  for (int rank : {0, 1, 2}) wait_in_collective(job.rank(rank));
  for (int rank : {0, 2}) {
    job.rank(rank).completed["world"] = 17;
    job.rank(rank).sequence = 18;
  }
  auto hang = job.stand_still(60);
  ASSERT_TRUE(hang);
  EXPECT_EQ(hang->rank, 1);
  EXPECT_NE(hang->what.find("which all others have left"), std::string::npos) << hang->what;
}

TEST(Liveness, SlowStepsGetFiveTimesWhatTheyTook) {
  Job job(2, 6);
  EXPECT_FALSE(job.run(120));
  EXPECT_FALSE(job.stand_still(25));
  EXPECT_TRUE(job.stand_still(10));
}

TEST(Liveness, StartsSavesAndEvaluationsHaveTheirOwnLimit) {
  for (Phase phase : {Phase::start, Phase::save, Phase::evaluate, Phase::finish}) {
    Job job(2);
    job.run(60);
    job.enter(phase);
    EXPECT_FALSE(job.stand_still(590)) << name_of(phase);
    EXPECT_TRUE(job.stand_still(1800)) << name_of(phase);
  }
}

TEST(Liveness, TheFirstStepsAreNotJudgedByTheLastOnes) { EXPECT_FALSE(Job(2, 40).run(150)); }

TEST(Liveness, ALongSaveDoesNotMakeStepsLookSlow) {
  Job job(2);
  job.run(60);
  job.enter(Phase::save);
  job.stand_still(200);
  job.run(60);
  EXPECT_TRUE(job.stand_still(10));
}

TEST(Liveness, WhoWasAsleepItselfHasSeenNothing) {
  Job job(2);
  job.run(60);
  job.stand_still(5);
  job.sleep(100);  // as after Ctrl-Z and `fg`
  EXPECT_FALSE(job.stand_still(5));
}

}  // namespace
}  // namespace echelon
