#include "launch/command/child.h"

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster/base/error.h"

namespace echelon {

namespace {

std::vector<std::string> merged_environment(const std::vector<std::pair<std::string, std::string>>& ours) {
  std::map<std::string, std::string> merged;
  for (char** entry = environ; *entry; ++entry) {
    std::string text = *entry;
    size_t equals = text.find('=');
    if (equals != std::string::npos) merged[text.substr(0, equals)] = text.substr(equals + 1);
  }
  for (const auto& [name, value] : ours) merged[name] = value;
  std::vector<std::string> entries;
  for (const auto& [name, value] : merged) entries.push_back(name + "=" + value);
  return entries;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

struct Pipes {
  int output[2] = {-1, -1};
  int failure[2] = {-1, -1};  // closed by a successful exec, holds errno otherwise
};

// Between fork and exec: only calls that are safe there.
[[noreturn]] void become(const ChildOptions& options, const Pipes& pipes, char** arguments, char** environment,
                         pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);  // the parent died before the line above
  int empty = open("/dev/null", O_RDONLY);
  dup2(empty, STDIN_FILENO);
  if (options.capture_stdout) dup2(pipes.output[1], STDOUT_FILENO);
  if (options.capture_stderr) dup2(pipes.output[1], STDERR_FILENO);
  for (int number : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGPIPE}) std::signal(number, SIG_DFL);
  execve(arguments[0], arguments, environment);
  int reason = errno;
  if (write(pipes.failure[1], &reason, sizeof reason) < 0) _exit(126);
  _exit(127);
}

void close_all(std::initializer_list<int> descriptors) {
  for (int descriptor : descriptors) {
    if (descriptor >= 0) close(descriptor);
  }
}

}  // namespace

Child Child::start(const ChildOptions& options) {
  std::vector<std::string> arguments = options.arguments, environment = merged_environment(options.environment);
  std::vector<char*> argument_pointers = pointers(arguments), environment_pointers = pointers(environment);
  Pipes pipes;
  if (pipe2(pipes.output, O_CLOEXEC) != 0 || pipe2(pipes.failure, O_CLOEXEC) != 0) {
    throw Error::recipe(arguments[0], fmt::format("no pipe: {}", std::strerror(errno)));
  }
  pid_t parent = getpid();
  pid_t pid = fork();
  if (pid == 0) become(options, pipes, argument_pointers.data(), environment_pointers.data(), parent);
  close_all({pipes.output[1], pipes.failure[1]});
  int reason = pid < 0 ? errno : 0;
  if (pid > 0 && read(pipes.failure[0], &reason, sizeof reason) <= 0) reason = 0;
  close(pipes.failure[0]);
  if (reason != 0) {
    close(pipes.output[0]);
    if (pid > 0) waitpid(pid, nullptr, 0);
    throw Error::recipe(arguments[0], fmt::format("cannot be started: {}", std::strerror(reason)));
  }
  Child child;
  child.pid_ = pid;
  child.output_ = pipes.output[0];
  return child;
}

Child::Child(Child&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), output_(std::exchange(other.output_, -1)), ending_(other.ending_) {}

Child::~Child() {
  if (output_ >= 0) close(output_);
  if (pid_ < 0 || ending_) return;
  signal_group(SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Child::signal_group(int signal) const { kill(-pid_, signal); }
void Child::signal(int signal) const { kill(pid_, signal); }

std::optional<Ending> Child::ended() {
  int status = 0;
  if (!ending_ && waitpid(pid_, &status, WNOHANG) == pid_) {
    ending_ = WIFSIGNALED(status) ? Ending{0, WTERMSIG(status)} : Ending{WEXITSTATUS(status), 0};
  }
  return ending_;
}

std::string Child::read_output(int milliseconds) {
  pollfd wait{output_, POLLIN, 0};
  if (poll(&wait, output_ >= 0, milliseconds) <= 0) return "";
  char buffer[1 << 16];
  ssize_t count = read(output_, buffer, sizeof buffer);
  if (count > 0) return {buffer, static_cast<size_t>(count)};
  if (count == 0 || errno != EINTR) {
    close(output_);
    output_ = -1;
  }
  return "";
}

std::string output_of(const std::vector<std::string>& arguments, double seconds) {
  auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  std::string output;
  try {
    Child child = Child::start({.arguments = arguments, .capture_stderr = true, .capture_stdout = true});
    while (!child.output_closed()) {
      output += child.read_output(50);
      if (std::chrono::steady_clock::now() > deadline || output.size() > (1 << 20)) return "";
    }
    return output;
  } catch (const Error&) {
    return "";
  }
}

void adopt_orphans() { prctl(PR_SET_CHILD_SUBREAPER, 1); }

namespace {

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream file(entry.path() / "stat");
    std::string stat;
    std::getline(file, stat);
    std::istringstream after_name(stat.substr(std::min(stat.size(), stat.rfind(')') + 1)));
    char state = 0;
    pid_t parent_of_it = 0;
    if (after_name >> state >> parent_of_it && parent_of_it == parent) children.push_back(std::stoi(name));
  }
  return children;
}

}  // namespace

void kill_orphans() {
  // A killed process hands its own children to us, so once is not enough; one that the kernel holds is not waited for.
  auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  for (std::vector<pid_t> left = children_of(getpid()); !left.empty(); left = children_of(getpid())) {
    for (pid_t child : left) {
      kill(child, SIGKILL);
      waitpid(child, nullptr, WNOHANG);
    }
    if (std::chrono::steady_clock::now() > deadline) return;
    usleep(10'000);
  }
}

std::string signal_name(int signal) {
  const char* name = sigabbrev_np(signal);
  return name ? fmt::format("SIG{}", name) : fmt::format("signal {}", signal);
}

}  // namespace echelon
