#include "launch/command/restart.h"

#include <gtest/gtest.h>

namespace echelon {
namespace {

/// Fails with a signature of its own each time, so that only progress counts.
Attempt failure(int64_t newest_step, const std::string& signature = "") {
  static int count = 0;
  return {.may_pass = true,
          .signature = signature.empty() ? std::to_string(++count) : signature,
          .newest_step = newest_step,
          .has_earlier = newest_step > 1};
}

TEST(RestartPolicy, WaitsDoubleUpToAMinute) {
  RestartPolicy policy(1000, 7);
  double expected = 1;
  for (int64_t step = 0; step < 10; ++step, expected = 1) {  // each step refills, and the waits begin again
    for (int i = 0; i < 3; ++i, expected *= 2) {
      Decision decision = policy.after(failure(step));
      ASSERT_TRUE(decision.restart) << decision.reason;
      EXPECT_LE(decision.wait_seconds, expected);
      EXPECT_GE(decision.wait_seconds, 0.75 * expected);
    }
  }
}

TEST(RestartPolicy, WaitsAreTheSeeds) {
  RestartPolicy one(3, 7), same(3, 7), other(3, 8);
  Attempt attempt = failure(5);
  double wait = one.after(attempt).wait_seconds;
  EXPECT_EQ(same.after(attempt).wait_seconds, wait);
  EXPECT_NE(other.after(attempt).wait_seconds, wait);
}

TEST(RestartPolicy, ThreeAttemptsWithoutANewStepEndTheJob) {
  RestartPolicy policy(1000, 7);
  policy.begin(5);
  EXPECT_TRUE(policy.after(failure(5)).restart);
  EXPECT_TRUE(policy.after(failure(5)).restart);
  Decision last = policy.after(failure(5));
  EXPECT_FALSE(last.restart);
  EXPECT_EQ(last.reason, "3 attempts failed behind step 5");
}

TEST(RestartPolicy, ANewStepRefillsTheBudget) {
  RestartPolicy policy(2, 7);
  for (int64_t step = 1; step < 100; ++step) {
    EXPECT_TRUE(policy.after(failure(step)).restart);
    EXPECT_TRUE(policy.after(failure(step)).restart);
  }
  EXPECT_EQ(policy.after(failure(99)).reason, "--max_restarts=2 is used up behind step 99");
}

TEST(RestartPolicy, DoingAgainWhatWasDoneIsNoProgress) {
  RestartPolicy policy(1000, 7);
  policy.begin(6);
  EXPECT_TRUE(policy.after(failure(6)).restart);
  EXPECT_TRUE(policy.after(failure(3)).restart);
  EXPECT_FALSE(policy.after(failure(6)).restart);
}

TEST(RestartPolicy, TheSameFailureTwiceGoesOneCheckpointBackAndThriceEnds) {
  RestartPolicy policy(1000, 7);
  policy.begin(3);
  EXPECT_EQ(policy.after(failure(6, "rank 1 killed")).before_step, 0);
  Decision second = policy.after(failure(6, "rank 1 killed"));
  EXPECT_TRUE(second.restart);
  EXPECT_EQ(second.before_step, 6);
  Decision third = policy.after(failure(6, "rank 1 killed"));
  EXPECT_FALSE(third.restart);
  EXPECT_EQ(third.reason, "the same failure 3 times behind step 6");
}

TEST(RestartPolicy, WithoutAnEarlierCheckpointTheSameFailureStartsFromTheOneThereIs) {
  RestartPolicy policy(1000, 7);
  policy.after({.may_pass = true, .signature = "a", .newest_step = 6});
  Decision second = policy.after({.may_pass = true, .signature = "a", .newest_step = 6});
  EXPECT_TRUE(second.restart);
  EXPECT_EQ(second.before_step, 0);
}

TEST(RestartPolicy, AnotherFailureOrANewStepStartsTheCountAgain) {
  RestartPolicy policy(1000, 7);
  policy.after(failure(6, "a"));
  EXPECT_EQ(policy.after(failure(6, "b")).before_step, 0);
  EXPECT_EQ(policy.after(failure(9, "b")).before_step, 0);
  EXPECT_EQ(policy.after(failure(9, "b")).before_step, 9);
}

TEST(RestartPolicy, WhatCannotPassIsNotTriedAgain) {
  RestartPolicy policy(1000, 7);
  Attempt attempt = failure(6);
  attempt.may_pass = false;
  Decision decision = policy.after(attempt);
  EXPECT_FALSE(decision.restart);
  EXPECT_EQ(decision.reason, "");
}

TEST(RestartPolicy, RanksThatNeverCameToLifeAreNotTriedAgain) {
  RestartPolicy policy(1000, 7);
  Attempt attempt = failure(-1);
  attempt.started = false;
  EXPECT_FALSE(policy.after(attempt).restart);
  RestartPolicy other(1000, 7);
  EXPECT_TRUE(other.after(failure(-1)).restart);
  EXPECT_TRUE(other.after(attempt).restart);  // a machine that was there may come back
}

TEST(RestartPolicy, ZeroRestartsAreNone) { EXPECT_FALSE(RestartPolicy(0, 7).after(failure(6)).restart); }

}  // namespace
}  // namespace echelon
