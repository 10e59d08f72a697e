// Saves that are killed at every system call that changes something; at random moments: faults/kills.cc.
#include <algorithm>
#include <csignal>
#include <functional>
#include <iterator>

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/store/stored_steps.h"

namespace echelon {
namespace {

/// Kills need no disk: what a killed process wrote is there, synced or not.
std::string memory_folder() { return is_folder("/dev/shm") ? "/dev/shm" : testing::TempDir(); }

bool changes_files(uint64_t call) {
  constexpr uint64_t calls[] = {SYS_openat, SYS_pwrite64, SYS_fsync, SYS_rename,    SYS_renameat2, SYS_mkdir,
                                SYS_unlink, SYS_unlinkat, SYS_rmdir, SYS_fallocate, SYS_close};
  return std::find(std::begin(calls), std::end(calls), call) != std::end(calls);
}

bool is_before_a_change(pid_t child) {
  struct __ptrace_syscall_info info = {};
  ::ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof info, &info);
  return info.op == PTRACE_SYSCALL_INFO_ENTRY && changes_files(info.entry.nr);
}

/// Runs `action` in a process that is killed just before its n-th (from 0) call that changes something. False when it
/// made fewer and ended by itself.
bool is_killed_before_call(int n, const std::function<void()>& action) {
  pid_t child = ::fork();
  if (child == 0) {
    ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
    ::raise(SIGSTOP);
    action();
    ::_exit(0);
  }
  int status = 0, seen = 0;
  ::waitpid(child, &status, 0);
  ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
  while (::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr) == 0) {
    ::waitpid(child, &status, 0);
    if (!WIFSTOPPED(status)) return false;
    if (WSTOPSIG(status) != (SIGTRAP | 0x80) || !is_before_a_change(child) || seen++ < n) continue;
    ::kill(child, SIGKILL);
    ::waitpid(child, &status, 0);
    return true;
  }
  return false;
}

/// Every step that can be seen is whole. Gives the newest, 0 when there is none.
int64_t newest_whole_step(const CheckpointStore& store) {
  for (int64_t step : store.steps()) EXPECT_TRUE(find_damage(open_checkpoint(store.folder(step))).empty()) << step;
  std::optional<Checkpoint> found = store.recover();
  return found ? found->step : 0;
}

TEST(KilledSave, BeforeAnyCallLeavesOnlyWholeSteps) {
  TemporaryFolder folder(memory_folder());
  CheckpointStore template_store(folder.at("template"));
  for (int64_t step : {1, 2}) save_step(template_store, step);
  bool was_killed = true;
  int call = 0, committed_after = 0;
  for (; was_killed; ++call) {
    std::string run = folder.at(fmt::format("run-{}", call));
    std::filesystem::copy(folder.at("template"), run, std::filesystem::copy_options::recursive);
    CheckpointStore store(run);
    was_killed = is_killed_before_call(call, [&] {
      save_step(store, 3);
      store.retire(2);
    });
    int64_t newest = newest_whole_step(store);
    ASSERT_GE(newest, 2) << "killed before call " << call;
    committed_after += newest == 3;
    store.clean();
    ASSERT_EQ(save_step(store, 4).step, 4) << "the next run can save, killed before call " << call;
    std::filesystem::remove_all(run);
  }
  EXPECT_GT(call, 30);
  EXPECT_GT(committed_after, 1);     // kills came after the commit
  EXPECT_LT(committed_after, call);  // and before it
}

}  // namespace
}  // namespace echelon
