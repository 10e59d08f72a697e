// Runs that die, freeze, wake or start at once: one commits.
#include <csignal>
#include <functional>

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/store/run_folder.h"
#include "tests/store/stored_steps.h"

namespace echelon {
namespace {

/// As if this process ran on another machine.
HoldOptions elsewhere(double lease_seconds) {
  HoldOptions options{.lease_seconds = lease_seconds, .self = RunOwner::this_process()};
  options.self.host = "elsewhere";
  options.self.boot_id = "another kernel";
  return options;
}

/// A process that runs `action` and ends with its exit code; the action says "ready" through `ready()`.
class Other {
 public:
  explicit Other(const std::function<void(const std::function<void()>& ready)>& action) {
    EXPECT_EQ(::pipe(ends_), 0);
    pid_ = ::fork();
    if (pid_ != 0) return;
    try {
      action([this] { (void)!::write(ends_[1], "x", 1); });
      ::_exit(0);
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.what());
      ::_exit(error.exit_code());
    }
  }
  ~Other() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    ::close(ends_[0]);
    ::close(ends_[1]);
  }

  void wait_until_ready() {
    char ready;
    ASSERT_EQ(::read(ends_[0], &ready, 1), 1);
  }
  void signal(int number) { ::kill(pid_, number); }
  void freeze() {
    signal(SIGSTOP);
    ::waitpid(pid_, nullptr, WUNTRACED);
  }
  int exit_code() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  pid_t pid() const { return pid_; }

 private:
  int ends_[2];
  pid_t pid_;
};

class LeaseTest : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::string run_ = folder_.at("run");
};

TEST_F(LeaseTest, EveryHolderHasAHigherEpochThanTheLast) {
  for (int64_t epoch : {1, 2, 3}) EXPECT_EQ(RunFolder::hold(run_).epoch(), epoch);
  EXPECT_EQ(list_folder(join_path(run_, "lease")), (std::vector<std::string>{"epoch-00000003.json", "lock"}));
}

TEST_F(LeaseTest, TheEpochStandsInTheManifest) {
  RunFolder held = RunFolder::hold(run_);
  CheckpointStore store(run_);
  store.act_under(held.epoch());
  save_step(store, 50);
  EXPECT_EQ(open_checkpoint(store.folder(50)).manifest.epoch, 1);
}

TEST_F(LeaseTest, AClaimIsMadeOnce) {
  RunOwner self = RunOwner::this_process();
  make_folders(join_path(run_, "lease"));
  EXPECT_TRUE(make_claim(run_, 4, self));
  EXPECT_FALSE(make_claim(run_, 4, self));
  EXPECT_FALSE(make_claim(run_, 3, self));  // a sleeper's, whose number was given up and forgotten
  EXPECT_EQ(newest_claim(run_)->epoch, 4);
}

TEST_F(LeaseTest, AnOwnerOnAnotherMachineThatGivesSignsOfLifeIsNotDisturbed) {
  RunFolder held = RunFolder::hold(run_, elsewhere(0.6));
  EXPECT_REFUSED(RunFolder::hold(run_), storage, "in use by process");
  EXPECT_NO_THROW(held.check_held());
}

TEST_F(LeaseTest, AnOwnerOnAnotherMachineIsTakenOverAfterTheLeaseOnly) {
  make_folders(join_path(run_, "lease"));
  ASSERT_TRUE(make_claim(run_, 1, elsewhere(60).self));
  auto start = std::chrono::steady_clock::now();
  RunFolder held = RunFolder::hold(run_, {.lease_seconds = 0.4});
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(400));
  EXPECT_EQ(held.epoch(), 2);
  EXPECT_NE(held.taken_over_from().find("on host elsewhere"), std::string::npos);
}

TEST_F(LeaseTest, AFrozenOwnerOfThisMachineIsAlive) {
  Other owner([&](auto ready) {
    RunFolder held = RunFolder::hold(run_);
    ready();
    ::pause();
  });
  owner.wait_until_ready();
  owner.freeze();
  EXPECT_REFUSED(RunFolder::hold(run_, {.lease_seconds = 0.1}), storage, fmt::format("process {}", owner.pid()));
}

TEST_F(LeaseTest, AFrozenOwnerOfAnotherMachineThatWakesCannotCommit) {
  Other owner([&](auto ready) {
    RunFolder held = RunFolder::hold(run_, elsewhere(0.3));
    CheckpointStore store(run_);
    store.act_under(held.epoch());
    save_step(store, 50);
    std::string staging = store.begin(100, 1000);
    FileRecord vote = write_rank_file(staging, 0, 'x');
    ready();
    ::usleep(1'000'000);
    store.commit(staging, 100, {vote}, "");
  });
  owner.wait_until_ready();
  owner.freeze();
  RunFolder held = RunFolder::hold(run_, {.lease_seconds = 0.3});
  CheckpointStore store(run_);
  store.act_under(held.epoch());
  save_step(store, 75);
  owner.signal(SIGCONT);
  EXPECT_EQ(owner.exit_code(), 5);
  EXPECT_EQ(store.steps(), (std::vector<int64_t>{50, 75}));
  EXPECT_NO_THROW(held.check_held());
}

TEST_F(LeaseTest, WhatAFrozenOwnerHadInFlightCannotAppearAfterTheNewOwnerHasCleaned) {
  CheckpointStore old(run_), store(run_);
  std::string staging = old.begin(50, 1000);
  FileRecord vote = write_rank_file(staging, 0, 'x');
  store.clean();
  EXPECT_REFUSED(old.commit(staging, 50, {vote}, ""), storage, "");
  EXPECT_TRUE(store.steps().empty());
}

TEST_F(LeaseTest, AnOwnerThatWasReplacedRemovesNothing) {
  RunOwner self = RunOwner::this_process();
  CheckpointStore store(run_);
  for (int64_t step : {1, 2, 3, 4}) save_step(store, step);
  store.act_under(RunFolder::hold(run_).epoch());
  ASSERT_TRUE(make_claim(run_, 2, self));
  EXPECT_REFUSED(store.retire(2), storage, "taken over by process");
  EXPECT_EQ(store.steps().size(), 4u);
}

/// Starters at once, again and again, while the winner of each round is killed: nobody holds together with another.
TEST_F(LeaseTest, OfManyStartersAndDeathsThereIsNeverMoreThanOneHolder) {
  for (int round = 0; round < 10; ++round) {
    std::vector<std::unique_ptr<Other>> starters;
    for (int i = 0; i < 4; ++i) {
      starters.push_back(std::make_unique<Other>([&](auto) {
        RunFolder held = RunFolder::hold(run_);
        // Two at once would both create it.
        std::string proof = folder_.at("alone");
        if (::mkdir(proof.c_str(), 0700) != 0) ::_exit(9);
        ::usleep(20'000);
        ::rmdir(proof.c_str());
        if (round % 2) ::raise(SIGKILL);
      }));
    }
    int held = 0, refused = 0;
    for (auto& starter : starters) {
      int code = starter->exit_code();
      held += code == 0 || code == -1;
      refused += code == 5;
    }
    EXPECT_GE(held, 1);
    EXPECT_EQ(held + refused, 4);
    EXPECT_FALSE(exists(folder_.at("alone")));
  }
}

}  // namespace
}  // namespace echelon
