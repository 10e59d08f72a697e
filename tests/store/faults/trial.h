// What the fault trials share: a row of them, runs to break, and what must hold afterwards.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <sys/types.h>

#include "tests/store/stored_steps.h"

namespace echelon {

/// A promise that was not kept.
struct BrokenPromise : std::runtime_error {
  using std::runtime_error::runtime_error;
};
void demand(bool is_kept, const std::string& sentence);

/// Trials of one kind. Each is known by its number alone: run again, it does the same (times excepted).
struct FaultRow {
  /// How many there are, for what is enumerated; any number without it.
  std::function<int64_t()> last = nullptr;
  /// Throws BrokenPromise, or Error.
  std::function<void(int64_t trial)> run;
  /// Why it cannot run here; "" when it can.
  std::function<std::string()> obstacle = nullptr;
};

FaultRow failing_calls();        ///< EIO, ENOSPC and short transfers at every call
FaultRow kills_at_calls();       ///< SIGKILL before every call that changes something
FaultRow random_kills();         ///< SIGKILL at random moments
FaultRow frozen_at_calls();      ///< stopped before every such call, replaced, woken
FaultRow random_flips();         ///< one bit of a stored checkpoint
FaultRow flips_of_every_byte();  ///< of the headers and the manifest
FaultRow races();                ///< two to four runs want one folder
FaultRow cuts_at_calls();        ///< the power goes before every call that changes something
FaultRow random_cuts();          ///< the power goes at random moments

/// Kills need no disk: what a killed process wrote is there, synced or not.
std::string memory_folder();

/// A save as a run makes it: what fails is abandoned.
void save_or_abandon(const CheckpointStore& store, int64_t step, int64_t bytes = 1000);
/// Every step that can be seen is whole, each byte the one that was saved, and `wanted` are among them.
void demand_whole_steps(const CheckpointStore& store, const std::vector<int64_t>& wanted);
/// What the next start does: cleans up, finds the newest step, saves one more. Gives the newest.
int64_t start_again(const CheckpointStore& store);
/// Reads a checkpoint to its last byte and compares it with what save_step wrote.
void demand_content(const Checkpoint& checkpoint);

/// A process that runs `action`; killed when destroyed. Exit code: of the Error, 0, or 99 for a broken promise.
class Child {
 public:
  explicit Child(const std::function<void()>& action);
  Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, 0)) {}
  ~Child();
  void signal(int number) const;
  /// Waits until it is stopped; false when it ended instead.
  bool wait_until_stopped();
  /// Exit code, or minus the signal that killed it.
  int wait();

 private:
  pid_t pid_;
  int status_ = 0;
};

/// How many calls that change something `action` makes; none of its effects outlive this.
int64_t count_changes(const std::function<void()>& action);
/// Runs `action` and calls `strike` before its n-th (from 0) call that changes something.
void run_with_strike(int64_t n, const std::function<void()>& strike, const std::function<void()>& action);

}  // namespace echelon
