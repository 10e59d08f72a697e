#include "launch/command/drill_job.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include <unistd.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "cluster/base/json.h"

namespace echelon {

namespace {

constexpr double kPatienceSeconds = 600;  // without a new step
constexpr int kStopped = static_cast<int>(Error::Kind::stopped);
constexpr int kLookMilliseconds = 5;
constexpr std::streamoff kTailBytes = 64 << 10;  // of the metrics: the last step stands well within

/// What the launcher says of a fault, or of a wish to stop.
bool is_notice(const std::string& line) {
  return line.starts_with("last lines of") || line.starts_with("stopping") || line.starts_with("echelon: ") ||
         line.starts_with("warning: ");
}

}  // namespace

std::vector<std::string> command_line_of(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/cmdline", pid));
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

DrillJob::DrillJob(std::vector<std::string> command, std::string folder)
    : command_(std::move(command)), folder_(std::move(folder)) {
  command_.push_back("--out=" + folder_);
}

void DrillJob::start() {
  child_.reset();
  child_.emplace(Child::start({.arguments = command_, .capture_stderr = true}));
}

int64_t DrillJob::last_step() const {
  std::ifstream file(join_path(folder_, "metrics.jsonl"), std::ios::ate);
  std::streamoff end = file.tellg();
  file.seekg(std::max<std::streamoff>(0, end - kTailBytes));
  int64_t last = 0;
  for (std::string line; std::getline(file, line);) {
    // The file may be read while a line is written, and the first one here may lack its beginning.
    Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object() && json.contains("loss") && json.contains("step")) last = json["step"].get<int64_t>();
  }
  return last;
}

std::vector<pid_t> DrillJob::processes(const std::string& program) const {
  std::vector<pid_t> pids;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::vector<std::string> words = command_line_of(std::stoi(name));
    if (words.empty() || name_of_file(words[0]) != program) continue;
    if (std::find(words.begin(), words.end(), "--out=" + folder_) != words.end()) pids.push_back(std::stoi(name));
  }
  return pids;
}

void DrillJob::take_line(const std::string& line) {
  static const std::regex resumed("(?:restart \\d+ from step |going on from .*step-)(\\d+)");
  std::smatch found;
  last_words_ = line;
  if (!faulty_) return;
  if (std::regex_search(line, found, resumed)) resumed_from_ = std::stoll(found[1]);
  if (!is_notice(line)) return;
  if (!noticed_after_) noticed_after_ = since_fault();
  if (notice_.empty() && !line.starts_with("last lines of")) notice_ = line;
}

void DrillJob::watch() {
  unfinished_line_ += child_->read_output(kLookMilliseconds);
  for (size_t end; (end = unfinished_line_.find('\n')) != std::string::npos;) {
    take_line(unfinished_line_.substr(0, end));
    unfinished_line_.erase(0, end + 1);
  }
  if (child_->output_closed()) usleep(1000 * kLookMilliseconds);
  if (faulty_ && !new_step_after_ && last_step() > step_at_fault_) new_step_after_ = since_fault();
}

void DrillJob::wait_for_step(int64_t step) {
  while (last_step() < step) {
    watch();
    if (child_->ended()) {
      throw Error::recipe("steps", fmt::format("the run was over before the fault behind step {}", step))
          .got(last_words_)
          .remedy("give the recipe more steps");
    }
  }
}

void DrillJob::fault_begins() {
  if (faulty_) return;
  step_at_fault_ = last_step();
  fault_ = Clock::now();
  faulty_ = true;
}

void DrillJob::hit(pid_t pid, int signal) {
  fault_begins();
  kill(pid, signal);
}

void DrillJob::wait_for_notice() {
  while (notice_.empty()) {
    if (child_->ended()) throw Error::internal("drill", "the run has said nothing of the fault").got(last_words_);
    watch();
  }
}

void DrillJob::stop_on_request() {
  hit(launcher_pid(), SIGTERM);
  expect("the run that was asked to stop", finish(), kStopped);
}

void DrillJob::expect(const std::string& whose, int exit_code, int promised) const {
  if (exit_code == promised) return;
  throw Error::internal("drill", fmt::format("{} ended with exit code {}", whose, exit_code))
      .expected(std::to_string(promised))
      .got(last_words_);
}

int DrillJob::finish() {
  int64_t step = last_step();
  for (auto seen = Clock::now(); !child_->ended(); watch()) {
    if (int64_t now = last_step(); now != step) {
      step = now;
      seen = Clock::now();
    }
    if (std::chrono::duration<double>(Clock::now() - seen).count() > kPatienceSeconds)
      throw Error::internal("drill", fmt::format("no new step for {} s behind step {}", kPatienceSeconds, step));
  }
  while (!child_->output_closed()) watch();
  Ending ending = *child_->ended();
  return ending.signal != 0 ? 128 + ending.signal : ending.exit_code;
}

}  // namespace echelon
