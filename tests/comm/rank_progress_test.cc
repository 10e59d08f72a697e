#include "comm/ledger/rank_progress.h"

#include <csignal>

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cluster/testing.h"

namespace echelon {
namespace {

TEST(RankProgress, IsReadFromOutsideAndSurvivesTheRank) {
  TemporaryFolder folder;
  std::string path = folder.at("rank-00000.progress");
  pid_t rank = ::fork();
  if (rank == 0) {
    RankProgress progress(path);
    progress.enter(Phase::input, 6);
    progress.enter(Phase::compute, 7);
    progress.beat();
    ::raise(SIGKILL);
  }
  ::waitpid(rank, nullptr, 0);
  auto state = read_progress(path);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->phase, Phase::compute);
  EXPECT_EQ(state->step, 7);
  EXPECT_EQ(state->beats, 3);
  EXPECT_EQ(state->first_step, 6);
}

TEST(RankProgress, OfAnythingElseIsNone) {
  TemporaryFolder folder;
  EXPECT_FALSE(read_progress(folder.at("missing")));
  write_file_atomically(folder.at("short"), "1ECPROG1");
  EXPECT_FALSE(read_progress(folder.at("short")));
  write_file_atomically(folder.at("other"), std::string(64, 'x'));
  EXPECT_FALSE(read_progress(folder.at("other")));
}

}  // namespace
}  // namespace echelon
