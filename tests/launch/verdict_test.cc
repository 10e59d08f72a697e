#include "launch/command/verdict.h"

#include <csignal>

#include <gtest/gtest.h>

#include "launch/command/out_of_memory.h"

namespace echelon {
namespace {

RankReport report(int rank, std::optional<int> exit_code, const std::string& sentence, double ended) {
  return {.rank = rank, .pid = 1, .host = "h", .exit_code = exit_code, .sentence = sentence, .ended = ended};
}

TEST(Verdict, TheFirstRankWithAnErrorOfItsOwnIsTheCause) {
  Evidence seen{.ending = {6, 0}, .starter = Starter::mpirun};
  seen.reports = {report(0, 6, "comm: rank 2 has left", 1), report(1, 5, "storage: full", 3),
                  report(2, 4, "input: bad", 2)};
  EXPECT_EQ(judge(seen).sentence, "input: bad");
  EXPECT_EQ(judge(seen).exit_code, 4);
}

TEST(Verdict, ADeadRankIsTheCauseOfWhatOthersSayOfTheirConnections) {
  Evidence seen{.ending = {137, 0}, .starter = Starter::mpirun};
  seen.reports = {report(0, 6, "comm: all_reduce failed", 1), report(1, {}, "", 0)};
  seen.starter_says = StarterVerdict{.rank = 1, .host = "vm", .signal = SIGSEGV};
  EXPECT_EQ(judge(seen).sentence, "comm: rank 1 on vm: killed by signal 11 (SIGSEGV)");
  EXPECT_EQ(judge(seen).exit_code, 6);
}

TEST(Verdict, ARankThatTheSystemKilledForMemoryIsNotStartedAgain) {
  Evidence seen{.ending = {137, 0}, .starter = Starter::mpirun, .out_of_memory = true};
  seen.reports = {report(0, {}, "", 0), report(1, {}, "", 0)};
  seen.starter_says = StarterVerdict{.rank = 1, .host = host_name(), .signal = SIGKILL};
  EXPECT_EQ(judge(seen).exit_code, 8);
  EXPECT_FALSE(judge(seen).may_pass);
  EXPECT_TRUE(judge(seen).sentence.starts_with("memory: rank 1: killed by the system, which was out of memory"));
  seen.starter_says->host = "elsewhere";
  EXPECT_EQ(judge(seen).exit_code, 6);
  seen.starter_says->host = host_name();
  seen.starter_says->signal = SIGSEGV;
  EXPECT_EQ(judge(seen).exit_code, 6);
}

TEST(OutOfMemory, OnlyARecentKillCounts) {
  OutOfMemory memory;
  memory.look(1, 7);
  EXPECT_FALSE(memory.is_recent(1));
  memory.look(2, 8);
  EXPECT_TRUE(memory.is_recent(6));
  EXPECT_FALSE(memory.is_recent(8));
}

TEST(Verdict, StoppedRanksCountAlsoWhenMpirunFellOverTheFirst) {
  Evidence seen{.ending = {75, 0}, .starter = Starter::mpirun, .stop_signal = SIGTERM};
  seen.reports = {report(0, 75, "stopped: step 9: saved", 1), report(1, {}, "", 0)};
  EXPECT_EQ(judge(seen).exit_code, 75);
  EXPECT_EQ(judge(seen).sentence, "stopped: step 9: saved");
}

TEST(Verdict, ALostMachineIsTheCauseOfWhatOthersSayOfTheirConnections) {
  Evidence seen{.ending = {9, 0}, .starter = Starter::mpirun};
  seen.reports = {report(0, 6, "comm: all_reduce failed", 1)};
  seen.lost_machine = LostMachine{.host = "n2", .ranks = {2, 3}, .seconds = 1.5};
  EXPECT_EQ(judge(seen).sentence,
            "comm: machine n2: lost, or the link to it; its ranks 2, 3 were last heard of 1.5 s before the end");
  EXPECT_TRUE(judge(seen).may_pass);
  seen.starter_says = StarterVerdict{.rank = 1, .host = "n1", .signal = SIGSEGV};
  EXPECT_EQ(judge(seen).rank, 1);
}

TEST(Verdict, ARankThatLeavesWithoutAWordIsNamed) {
  Evidence seen{.ending = {3, 0}, .starter = Starter::mpirun};
  seen.starter_says = StarterVerdict{.rank = 2, .exit_code = 3};
  EXPECT_EQ(judge(seen).sentence, "recipe: rank 2: ended with exit code 3 and no reason");
  EXPECT_EQ(judge(seen).exit_code, 3);
}

TEST(Verdict, WithoutReportsTheLastSentenceCounts) {
  Evidence seen{.ending = {4, 0}, .starter = Starter::mpirun, .last_sentence = "input: x: truncated"};
  EXPECT_EQ(judge(seen).exit_code, 4);
  EXPECT_EQ(judge(seen).sentence, "input: x: truncated");
}

TEST(Verdict, MpirunsOwnFailureIsSaid) {
  Evidence seen{.ending = {132, 0}, .starter = Starter::mpirun};
  EXPECT_EQ(judge(seen).sentence, "comm: mpirun: failed with exit code 132; its own words stand above");
}

}  // namespace
}  // namespace echelon
