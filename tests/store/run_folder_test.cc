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

/// Exit codes of children that have ended: of `count`, or of those that did within 20 s.
std::vector<int> exit_codes_of(int count) {
  std::vector<int> codes;
  for (int naps = 0; std::ssize(codes) < count && naps < 2000; ++naps) {
    int status = 0;
    while (std::ssize(codes) < count && ::waitpid(-1, &status, WNOHANG) > 0) codes.push_back(WEXITSTATUS(status));
    ::usleep(10'000);
  }
  return codes;
}

TEST(RunFolder, OfSeveralThatStartAtOnceOneRuns) {
  TemporaryFolder folder;
  int gate[2];  // closed when the others have given up: until then the winner lives, however slow the machine is
  ASSERT_EQ(::pipe(gate), 0);
  for (int i = 0; i < 6; ++i) {
    if (::fork() != 0) continue;
    ::close(gate[1]);
    try {
      RunFolder run = RunFolder::hold(folder.at("run"));
      char none;
      (void)!::read(gate[0], &none, 1);
      ::_exit(0);
    } catch (const Error& error) {
      ::_exit(error.exit_code());
    }
  }
  EXPECT_EQ(exit_codes_of(5), std::vector<int>(5, 5));
  ::close(gate[1]);
  EXPECT_EQ(exit_codes_of(1), std::vector<int>{0});
  ::close(gate[0]);
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
  ASSERT_EQ(::chmod(folder.at("run").c_str(), 0750), 0);
  if (::chown(folder.at("run").c_str(), 12345, 12345) != 0) GTEST_SKIP() << "only root gives folders away";
  EXPECT_REFUSED(RunFolder::hold(folder.at("run")), recipe, "RUNDIR_UNSAFE: the run folder belongs to another user");
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
