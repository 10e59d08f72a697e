#include "runtime/store/run_folder.h"

#include <csignal>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/cluster/testing.h"

namespace echelon {
namespace {

unsigned mode_of(const std::string& path) {
  struct stat status;
  return ::stat(path.c_str(), &status) == 0 ? status.st_mode & 07777 : 0;
}

TEST(RunFolder, IsCreatedClosedToOthers) {
  TemporaryFolder folder;
  RunFolder run = RunFolder::hold(folder.at("runs/mine"));
  EXPECT_EQ(mode_of(run.path()), 0750u);
  EXPECT_EQ(run.taken_over_from(), "");
}

TEST(RunFolder, ASecondRunIsRefusedAndToldWhoHoldsIt) {
  TemporaryFolder folder;
  RunFolder run = RunFolder::hold(folder.at("run"));
  EXPECT_REFUSED(RunFolder::hold(folder.at("run")), storage, fmt::format("in use by process {} on host ", ::getpid()));
}

TEST(RunFolder, IsFreeAgainAfterwards) {
  TemporaryFolder folder;
  { RunFolder run = RunFolder::hold(folder.at("run")); }
  EXPECT_EQ(holder_of(folder.at("run")), "");
  EXPECT_EQ(RunFolder::hold(folder.at("run")).taken_over_from(), "");
}

TEST(RunFolder, MovesWithItsHolder) {
  TemporaryFolder folder;
  RunFolder first = RunFolder::hold(folder.at("run"));
  {
    RunFolder second = std::move(first);
    EXPECT_NE(holder_of(folder.at("run")), "");
  }
  EXPECT_EQ(holder_of(folder.at("run")), "");
}

TEST(RunFolder, OfAKilledRunIsTakenOver) {
  TemporaryFolder folder;
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  pid_t child = ::fork();
  if (child == 0) {
    RunFolder run = RunFolder::hold(folder.at("run"));
    (void)!::write(ends[1], "x", 1);
    ::pause();
  }
  char ready;
  ASSERT_EQ(::read(ends[0], &ready, 1), 1);
  EXPECT_REFUSED(RunFolder::hold(folder.at("run")), storage, fmt::format("in use by process {}", child));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  RunFolder run = RunFolder::hold(folder.at("run"));
  EXPECT_NE(run.taken_over_from().find(fmt::format("process {}", child)), std::string::npos);
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST(RunFolder, OfSeveralThatStartAtOnceOneRuns) {
  TemporaryFolder folder;
  int winners = 0;
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    pid_t child = ::fork();
    if (child == 0) {
      try {
        RunFolder run = RunFolder::hold(folder.at("run"));
        ::usleep(300000);
        ::_exit(0);
      } catch (const Error& error) {
        ::_exit(error.exit_code());
      }
    }
    children.push_back(child);
  }
  for (pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    winners += WEXITSTATUS(status) == 0;
    EXPECT_TRUE(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 5);
  }
  EXPECT_EQ(winners, 1);
}

TEST(RunFolder, ADamagedOwnerFileOfADeadRunIsNoObstacle) {
  TemporaryFolder folder;
  { RunFolder run = RunFolder::hold(folder.at("run")); }
  write_file_atomically(folder.at("run/lease/epoch-00000001.json"), "{torn");
  EXPECT_NO_THROW(RunFolder::hold(folder.at("run")));
}

TEST(RunFolder, ThatAnyoneMayWriteToIsRefusedUnlessTrusted) {
  TemporaryFolder folder;
  make_folders(folder.at("run"));
  ::chmod(folder.at("run").c_str(), 0777);
  EXPECT_REFUSED(RunFolder::hold(folder.at("run")), recipe, "RUNDIR_UNSAFE: anyone may write");
  EXPECT_NO_THROW(RunFolder::hold(folder.at("run"), {.trusted = true}));
}

TEST(RunFolder, AFileInItsPlaceIsRefused) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("run"), "x");
  EXPECT_REFUSED(RunFolder::hold(folder.at("run")), storage, "cannot create the run folder");
}

TEST(RunOwner, AnEarlierProcessOfTheSameNumberIsNotAlive) {
  RunOwner owner = RunOwner::this_process();
  EXPECT_TRUE(owner.is_alive_here());
  owner.process_start -= 1;
  EXPECT_FALSE(owner.is_alive_here());
}

}  // namespace
}  // namespace echelon
