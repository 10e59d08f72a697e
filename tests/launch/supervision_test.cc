// The real mpirun and a stand-in for the rank program.
#include <csignal>
#include <random>

#include "tests/launch/fake_installation.h"

namespace echelon {
namespace {

class Supervision : public testing::Test {
 protected:
  FakeInstallation echelon_;
};

TEST_F(Supervision, RanksThatEndWellGiveZero) {
  Outcome outcome = echelon_.run(echelon_.train(2));
  EXPECT_EQ(outcome.ending.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("rank 1 of 2"), std::string::npos) << outcome.output;
}

TEST_F(Supervision, OneRankNeedsNoMpirun) {
  Outcome outcome = echelon_.run(echelon_.train(1));
  EXPECT_EQ(outcome.ending.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("rank 0 of 1"), std::string::npos) << outcome.output;
}

TEST_F(Supervision, AKilledRankEndsTheJobWithinFiveSecondsAndIsNamed) {
  Outcome outcome = echelon_.run(echelon_.train(3, 0), "killed");
  EXPECT_LT(outcome.seconds, 5);
  EXPECT_EQ(outcome.ending.exit_code, 6);
  EXPECT_TRUE(outcome.last_line().starts_with("echelon: comm: rank 1 on ")) << outcome.output;
  EXPECT_NE(outcome.last_line().find("killed by signal 9 (SIGKILL)"), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.output.find("rank-00001.log:\n  loading tokens\n  about to die\n"), std::string::npos)
      << outcome.output;
  EXPECT_EQ(outcome.output.find("----"), std::string::npos) << outcome.output;  // mpirun's own words
}

TEST_F(Supervision, ALoneRankThatDiesIsNamed) {
  Outcome outcome = echelon_.run(echelon_.train(1, 0), "alone");
  EXPECT_EQ(outcome.ending.exit_code, 6);
  EXPECT_EQ(outcome.last_line(), "echelon: comm: rank 0: killed by signal 11 (SIGSEGV)") << outcome.output;
}

TEST_F(Supervision, ARanksErrorIsTheLastLineAndTheExitCode) {
  for (int ranks : {2, 3}) {
    Outcome outcome = echelon_.run(echelon_.train(ranks), "error");
    EXPECT_EQ(outcome.ending.exit_code, 4);
    EXPECT_EQ(outcome.last_line(), "echelon: input: x.safetensors: truncated") << outcome.output;
  }
}

TEST_F(Supervision, AFailedRankThatDoesNotEndTakesTheOthersWithItAllTheSame) {
  Outcome outcome = echelon_.run(echelon_.train(2), "silent");
  EXPECT_LT(outcome.seconds, 5);
  EXPECT_EQ(outcome.ending.exit_code, 7);
  EXPECT_EQ(outcome.last_line(), "echelon: numerics: step 3: loss is not finite") << outcome.output;
}

class Stopping : public Supervision, public testing::WithParamInterface<int> {};

TEST_P(Stopping, SigtermLetsRanksSaveAndGives75) {
  Child child = echelon_.start(echelon_.train(GetParam()), "stops");
  for (int rank = 0; rank < GetParam(); ++rank)
    ASSERT_TRUE(wait_for_file(echelon_.file("said." + std::to_string(rank))));
  child.signal(SIGTERM);
  Outcome outcome = FakeInstallation::finish(child);
  EXPECT_EQ(outcome.ending.exit_code, 75) << outcome.output;
  EXPECT_EQ(outcome.last_line(), "echelon: stopped: step 5: stopped on request after a durable checkpoint")
      << outcome.output;
}

TEST_P(Stopping, ASecondInterruptKills) {
  Child child = echelon_.start(echelon_.train(GetParam()), "deaf");
  for (int rank = 0; rank < GetParam(); ++rank)
    ASSERT_TRUE(wait_for_file(echelon_.file("said." + std::to_string(rank))));
  child.signal(SIGINT);
  usleep(300'000);
  ASSERT_FALSE(child.ended());
  child.signal(SIGINT);
  Outcome outcome = FakeInstallation::finish(child);
  EXPECT_LT(outcome.seconds, 5);
  EXPECT_EQ(outcome.ending.exit_code, 130) << outcome.output;
  EXPECT_EQ(outcome.last_line(), "echelon: stopped: SIGINT: ended before a checkpoint was durable") << outcome.output;
}

TEST_P(Stopping, RanksDoNotOutliveTheirSupervisor) {
  Child child = echelon_.start(echelon_.train(GetParam()), "deaf");
  std::vector<pid_t> ranks;
  for (int rank = 0; rank < GetParam(); ++rank) {
    std::string file = echelon_.file("said." + std::to_string(rank));
    ASSERT_TRUE(wait_for_file(file));
    usleep(100'000);
    pid_t pid = 0;
    std::ifstream(file) >> pid;
    ranks.push_back(pid);
  }
  child.signal(SIGKILL);
  auto any_runs = [&] { return std::any_of(ranks.begin(), ranks.end(), runs); };
  for (int i = 0; i < 100 && any_runs(); ++i) usleep(50'000);
  EXPECT_FALSE(any_runs());
  for (pid_t rank : ranks) kill(rank, SIGKILL);
}

INSTANTIATE_TEST_SUITE_P(Ranks, Stopping, testing::Values(1, 2));

TEST_F(Supervision, ADeadRankIsReplacedFromTheLastCheckpoint) {
  Outcome outcome = echelon_.run(echelon_.train(2), "dies_once");
  EXPECT_EQ(outcome.ending.exit_code, 0) << outcome.output;
  EXPECT_NE(outcome.output.find("restart 1 from step 5 in "), std::string::npos) << outcome.output;
}

TEST_F(Supervision, ThreeAttemptsWithoutAnyProgressAreTheLast) {
  Outcome outcome = echelon_.run(echelon_.train(2), "dies_always");
  EXPECT_EQ(outcome.ending.exit_code, 6);
  EXPECT_NE(outcome.output.find("restart 2 from the start in "), std::string::npos) << outcome.output;
  EXPECT_EQ(outcome.output.find("restart 3"), std::string::npos) << outcome.output;
  EXPECT_NE(outcome.last_line().find("before the first checkpoint)"), std::string::npos) << outcome.output;
}

TEST_F(Supervision, TheSameFailureTwiceGoesOneCheckpointBack) {
  Outcome outcome = echelon_.run(echelon_.train(2), "dies_behind_step_6");
  EXPECT_EQ(outcome.ending.exit_code, 6);
  EXPECT_NE(outcome.output.find("restart 2 from the checkpoint before step 6 in "), std::string::npos)
      << outcome.output;
  EXPECT_TRUE(outcome.last_line().starts_with("echelon: comm: rank 1 on ")) << outcome.output;
  EXPECT_NE(outcome.last_line().find("(the same failure 3 times behind step 6)"), std::string::npos) << outcome.output;
}

TEST_F(Supervision, AStoppedRankIsNamedWithinTenSecondsAndEverythingEnds) {
  Outcome outcome = echelon_.run(echelon_.train(2, 0), "freezes");
  EXPECT_LT(outcome.seconds, 10);
  EXPECT_EQ(outcome.ending.exit_code, 6);
  EXPECT_EQ(outcome.last_line(), "echelon: comm: rank 1: stopped by a signal in start") << outcome.output;
  EXPECT_TRUE(std::filesystem::exists(echelon_.file("run/log/flight-001.txt")));
}

TEST_F(Supervision, AnErrorOfARankIsNotTriedAgain) {
  Outcome outcome = echelon_.run(echelon_.train(2), "error");
  EXPECT_EQ(outcome.output.find("restart"), std::string::npos) << outcome.output;
}

TEST_F(Supervision, RestartsCanBeForbidden) {
  Outcome outcome = echelon_.run(echelon_.train(2, 0), "dies_once");
  EXPECT_EQ(outcome.ending.exit_code, 6);
  EXPECT_EQ(outcome.output.find("restart"), std::string::npos) << outcome.output;
}

TEST_F(Supervision, ThereAreNeverMoreThreadsThanProcessors) {
  for (int ranks : {1, 2, 4}) {
    std::string output = echelon_.run(echelon_.train(ranks)).output;
    size_t at = output.find(", ", output.find("rank 0 of "));
    int threads = std::stoi(output.substr(at + 2));
    EXPECT_GE(threads, 1);
    EXPECT_LE(threads * ranks, std::max<long>(ranks, sysconf(_SC_NPROCESSORS_ONLN)));
  }
}

std::vector<std::string> said(const std::string& file) {
  std::ifstream stream(file);
  std::vector<std::string> arguments;
  for (std::string argument; std::getline(stream, argument, '\0');) arguments.push_back(argument);
  return arguments;
}

TEST_F(Supervision, RanksGetWhatWasTypedWhateverItHolds) {
  std::mt19937 random(7);
  const std::string pieces[] = {
      "'", "\"", "$(touch canary)", "`touch canary`", ";touch canary;", "\n", " ", "--", "-", "=", "\\", "*", "~", "&&",
      "|", "ü"};
  for (int round = 0; round < 20; ++round) {
    std::string prompt = "x";
    for (int i = 0; i < 6; ++i) prompt += pieces[random() % std::size(pieces)];
    Outcome outcome = echelon_.run({"generate", "--model", prompt, "--prompt=" + prompt, "--ranks=1"}, "arguments");
    ASSERT_EQ(outcome.ending.exit_code, 0) << outcome.output;
    std::vector<std::string> arguments = said(echelon_.file("said"));
    EXPECT_NE(std::find(arguments.begin(), arguments.end(), "--prompt=" + prompt), arguments.end()) << prompt;
    EXPECT_NE(std::find(arguments.begin(), arguments.end(), "--model=" + prompt), arguments.end()) << prompt;
  }
  EXPECT_FALSE(std::filesystem::exists("canary"));
}

TEST_F(Supervision, NothingIsLeftInTheFolderForReports) {
  echelon_.run(echelon_.train(2, 1), "killed");
  for (const auto& entry : std::filesystem::directory_iterator(echelon_.file("run/log"))) {
    EXPECT_EQ(entry.path().extension(), ".log") << entry.path();
  }
}

}  // namespace
}  // namespace echelon
