// Saves that are killed, or frozen while another run takes their folder over.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <random>
#include <thread>

#include <unistd.h>

#include "runtime/store/run_folder.h"
#include "tests/store/faults/trial.h"

namespace echelon {
namespace {

constexpr int64_t bytes_of_a_rank = 20000;

/// Saves and removes older steps, for ever; each commit is reported through the pipe.
[[noreturn]] void save_for_ever(const CheckpointStore& store, int64_t step, int pipe) {
  for (;; ++step) {
    save_or_abandon(store, step, bytes_of_a_rank);
    demand(::write(pipe, &step, sizeof step) == sizeof step, "nobody listens");
    store.retire(2);
  }
}

/// What a child reports: the last number it wrote.
class Reports {
 public:
  Reports() { demand(::pipe(ends_) == 0, "no pipe"); }
  ~Reports() {
    ::close(ends_[0]);
    close_entry();
  }
  int entry() const { return ends_[1]; }
  int64_t last() {
    close_entry();
    int64_t last = 0;
    while (::read(ends_[0], &last, sizeof last) == sizeof last) continue;
    return last;
  }

 private:
  void close_entry() {
    if (ends_[1] >= 0) ::close(std::exchange(ends_[1], -1));
  }
  int ends_[2];
};

std::chrono::microseconds random_moment(int64_t trial, int64_t most) {
  return std::chrono::microseconds(std::mt19937(trial)() % most);
}

void kill_at_random(int64_t trial) {
  TemporaryFolder folder(memory_folder());
  CheckpointStore store(folder.path());
  Reports reports;
  Child child([&] { save_for_ever(store, 1, reports.entry()); });
  std::this_thread::sleep_for(random_moment(trial, 15000));
  child.signal(SIGKILL);
  child.wait();
  int64_t committed = reports.last();
  demand_whole_steps(store, committed > 0 ? std::vector{committed} : std::vector<int64_t>{});
  int64_t newest = start_again(store);
  demand(newest == committed || newest == committed + 1, fmt::format("{} after {} was committed", newest, committed));
}

/// What kills and freezes strike: a save and the removal of an older step.
void save_and_retire(const CheckpointStore& store) {
  save_or_abandon(store, 3);
  store.retire(2);
}

void prepare(const CheckpointStore& store) {
  for (int64_t step : {1, 2}) save_step(store, step);
}

int64_t changes_of_a_save() {
  TemporaryFolder folder(memory_folder());
  CheckpointStore store(folder.path());
  prepare(store);
  return count_changes([&] { save_and_retire(store); });
}

void kill_at_call(int64_t call) {
  TemporaryFolder folder(memory_folder());
  CheckpointStore store(folder.path());
  prepare(store);
  Child child([&] {
    run_with_strike(
        call, [] { ::raise(SIGKILL); }, [&] { save_and_retire(store); });
  });
  demand(child.wait() == -SIGKILL, "was not killed");
  demand_whole_steps(store, {2});
  demand(start_again(store) >= 2, "the next start goes on from an older step");
}

/// As if this process ran on another machine, whose silence is believed at once.
HoldOptions elsewhere() {
  HoldOptions options{.lease_seconds = 0.02};
  options.self.host = "elsewhere";
  options.self.boot_id = "another kernel";
  return options;
}

/// Another run takes the folder over and saves; the frozen one wakes, and must change nothing that counts.
void replace_and_wake(Child& frozen, const std::string& run) {
  RunFolder held = RunFolder::hold(run, {.lease_seconds = 0.02});
  CheckpointStore store(run);
  store.act_under(held.epoch());
  store.clean();
  int64_t newest = store.recover() ? store.recover()->step : 0;
  save_step(store, newest + 100);
  frozen.signal(SIGCONT);
  int code = frozen.wait();
  demand(code == 0 || code == static_cast<int>(Error::Kind::storage), fmt::format("the woken run ended with {}", code));
  demand_whole_steps(store, {newest + 100});
  demand(store.recover()->step == newest + 100, "the woken run has committed a step");
  for (int64_t step : store.steps()) {
    demand(step <= newest || step == newest + 100, fmt::format("step {} appeared after the takeover", step));
  }
  held.check_held();
}

void hold_elsewhere(const std::string& run, const std::function<void(const CheckpointStore&)>& action) {
  RunFolder held = RunFolder::hold(run, elsewhere());
  CheckpointStore store(run);
  store.act_under(held.epoch());
  action(store);
}

void freeze_at_call(int64_t call) {
  TemporaryFolder folder(memory_folder());
  CheckpointStore unowned(folder.path());
  prepare(unowned);
  Child child([&] {
    hold_elsewhere(folder.path(), [&](auto& store) {
      run_with_strike(
          call, [] { ::raise(SIGSTOP); }, [&] { save_and_retire(store); });
    });
  });
  demand(child.wait_until_stopped(), "was not frozen");
  replace_and_wake(child, folder.path());
}

void freeze_at_random(int64_t trial) {
  TemporaryFolder folder(memory_folder());
  Reports reports;
  Child child([&] { hold_elsewhere(folder.path(), [&](auto& store) { save_for_ever(store, 1, reports.entry()); }); });
  while (!exists(folder.at("inflight"))) std::this_thread::yield();
  std::this_thread::sleep_for(random_moment(trial, 15000));
  child.signal(SIGSTOP);
  demand(child.wait_until_stopped(), "was not frozen");
  replace_and_wake(child, folder.path());
}

constexpr int64_t one_frozen_in = 10;

}  // namespace

FaultRow kills_at_calls() { return {.last = changes_of_a_save, .run = kill_at_call}; }

FaultRow frozen_at_calls() { return {.last = changes_of_a_save, .run = freeze_at_call}; }

FaultRow random_kills() {
  return {.run = [](int64_t trial) { trial % one_frozen_in == 0 ? freeze_at_random(trial) : kill_at_random(trial); }};
}

}  // namespace echelon
