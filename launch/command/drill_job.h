// A run of `echelon train` that a drill starts, watches from outside and does harm to.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launch/command/child.h"

namespace echelon {

class DrillJob {
 public:
  /// `command`: `echelon train` and its arguments but for the folder.
  DrillJob(std::vector<std::string> command, std::string folder);

  const std::string& folder() const { return folder_; }
  void start();
  bool is_running() { return !child_->ended(); }
  /// Waits until the run's metrics hold `step`. Errors: Error::recipe when the run ends before.
  void wait_for_step(int64_t step);
  /// The last step in the run's metrics; 0: none.
  int64_t last_step() const;
  /// Of this run's ranks on this machine, in no order that means anything.
  std::vector<pid_t> rank_pids() const { return processes("echelon-rank"); }
  pid_t launcher_pid() const { return child_->pid(); }
  /// Those of a program that were given this run's folder.
  std::vector<pid_t> processes(const std::string& program) const;
  /// From now on the clock runs: what is said and done next is the answer to the fault.
  void fault_begins();
  /// Sends a signal to a process. The clock begins.
  void hit(pid_t pid, int signal);
  /// Waits for the first word about the fault. Errors: Error::internal when the run ends without one.
  void wait_for_notice();
  /// Asks the launcher to stop, and waits until the run has. Errors: as of expect().
  void stop_on_request();
  /// Errors: Error::internal unless the exit code of `whose` run is the one that was promised.
  void expect(const std::string& whose, int exit_code, int promised) const;
  /// Waits for the launcher's end; its exit code, 128 more than the signal that ended it. Errors: Error::internal after
  /// ten minutes without a new step.
  int finish();

  int64_t step_at_fault() const { return step_at_fault_; }
  /// Of the checkpoint that the run went on from, as far as it had to.
  std::optional<int64_t> resumed_from() const { return resumed_from_; }
  /// Seconds from the fault to the launcher's first word about it, to that word, and to the first step that is new.
  std::optional<double> noticed_after() const { return noticed_after_; }
  const std::string& notice() const { return notice_; }
  std::optional<double> new_step_after() const { return new_step_after_; }
  const std::string& last_words() const { return last_words_; }

 private:
  using Clock = std::chrono::steady_clock;

  void watch();
  void take_line(const std::string& line);
  double since_fault() const { return std::chrono::duration<double>(Clock::now() - fault_).count(); }

  std::vector<std::string> command_;
  std::string folder_, unfinished_line_;
  std::optional<Child> child_;
  bool faulty_ = false;
  Clock::time_point fault_;
  int64_t step_at_fault_ = 0;
  std::optional<int64_t> resumed_from_;
  std::optional<double> noticed_after_, new_step_after_;
  std::string notice_, last_words_;
};

/// The process's program and arguments; empty for one that is gone.
std::vector<std::string> command_line_of(pid_t pid);

}  // namespace echelon
