#include "tests/store/faults/trial.h"

#include <algorithm>
#include <csignal>
#include <iostream>

#include <sys/wait.h>
#include <unistd.h>

#include "tests/store/faults/file_calls.h"

namespace echelon {

void demand(bool is_kept, const std::string& sentence) {
  if (!is_kept) throw BrokenPromise(sentence);
}

std::string memory_folder() { return is_folder("/dev/shm") ? "/dev/shm" : testing::TempDir(); }

void save_or_abandon(const CheckpointStore& store, int64_t step, int64_t bytes) {
  std::string staging = store.begin(step, 2 * bytes);
  try {
    commit_step(store, staging, step, bytes);
  } catch (const Error&) {
    store.abandon(staging);
    throw;
  }
}

void demand_content(const Checkpoint& checkpoint) {
  for (const FileRecord& record : checkpoint.manifest.files) {
    CheckpointFile file = CheckpointFile::open(checkpoint, record.name);
    const TensorEntry& entry = file.tensors().at("w");
    std::span<const std::byte> bytes(file.slice(entry, 0, entry.size()), entry.size());
    std::byte value{static_cast<unsigned char>(value_of(checkpoint.step, record.writer == "rank 0" ? 0 : 1))};
    bool is_same = std::all_of(bytes.begin(), bytes.end(), [&](std::byte byte) { return byte == value; });
    demand(is_same, fmt::format("{} holds other bytes than were saved", checkpoint.path(record.name)));
  }
}

void demand_whole_steps(const CheckpointStore& store, const std::vector<int64_t>& wanted) {
  std::vector<int64_t> found = store.steps();
  for (int64_t step : found) demand_content(open_checkpoint(store.folder(step)));
  for (int64_t step : wanted) {
    bool is_there = std::find(found.begin(), found.end(), step) != found.end();
    demand(is_there, fmt::format("step {} is lost, there are {}", step, found));
  }
}

int64_t start_again(const CheckpointStore& store) {
  store.clean();
  std::optional<Checkpoint> found = store.recover();
  int64_t newest = found ? found->step : 0;
  save_step(store, newest + 1);
  demand_whole_steps(store, {newest + 1});
  return newest;
}

Child::Child(const std::function<void()>& action) : pid_(::fork()) {
  if (pid_ != 0) return;
  try {
    action();
    ::_exit(0);
  } catch (const Error& error) {
    ::_exit(error.exit_code());
  } catch (const std::exception& broken) {
    std::cerr << broken.what() << std::endl;
    ::_exit(99);
  }
}

Child::~Child() {
  if (pid_ <= 0) return;
  signal(SIGKILL);
  wait();
}

void Child::signal(int number) const { ::kill(pid_, number); }

bool Child::wait_until_stopped() {
  ::waitpid(pid_, &status_, WUNTRACED);
  if (WIFSTOPPED(status_)) return true;
  pid_ = 0;
  return false;
}

int Child::wait() {
  if (pid_ > 0) ::waitpid(std::exchange(pid_, 0), &status_, 0);
  return WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_);
}

int64_t count_changes(const std::function<void()>& action) {
  int64_t count = 0;
  WatchedCalls watched([&](const FileCall& call) {
    count += call.changes;
    return 0;
  });
  action();
  return count;
}

void run_with_strike(int64_t n, const std::function<void()>& strike, const std::function<void()>& action) {
  WatchedCalls watched([&](const FileCall& call) {
    if (call.changes && n-- == 0) strike();
    return 0;
  });
  action();
}

}  // namespace echelon
