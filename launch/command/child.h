// A child process of ours: started from an argument vector, in a group of its own, gone when we are gone.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <sys/types.h>

namespace echelon {

struct ChildOptions {
  std::vector<std::string> arguments;                            ///< the first is the program's path
  std::vector<std::pair<std::string, std::string>> environment;  ///< laid over ours
  bool capture_stderr = false;                                   ///< otherwise it is ours
  bool capture_stdout = false;
};

/// How a process ended.
struct Ending {
  int exit_code = 0;  ///< when signal is 0
  int signal = 0;
};

/// Move-only; a child that still runs at destruction is killed with its group.
class Child {
 public:
  /// Stdin is empty. The child gets SIGTERM when this process dies. Errors: Error::recipe when it cannot be started.
  static Child start(const ChildOptions& options);
  Child(Child&& other) noexcept;
  Child& operator=(Child&&) = delete;
  ~Child();

  pid_t pid() const { return pid_; }
  /// Sends to every process of the group.
  void signal_group(int signal) const;
  /// Sends to the process alone.
  void signal(int signal) const;
  /// The end, once there is one; returns at once.
  std::optional<Ending> ended();
  /// Waits up to `milliseconds` for captured output and gives what came; "" at the end of a quiet wait.
  std::string read_output(int milliseconds);
  /// No writer is left.
  bool output_closed() const { return output_ < 0; }

 private:
  Child() = default;

  pid_t pid_ = -1;
  int output_ = -1;
  std::optional<Ending> ending_;
};

/// Runs a short command and gives its standard output and error; "" when it cannot be started or takes longer.
std::string output_of(const std::vector<std::string>& arguments, double seconds);

/// From now on orphaned descendants become our children. Kills all that are left and waits for them.
void adopt_orphans();
void kill_orphans();

/// "SIGKILL".
std::string signal_name(int signal);

}  // namespace echelon
