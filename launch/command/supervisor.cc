#include "launch/command/supervisor.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <deque>
#include <fstream>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "launch/command/monitor.h"
#include "launch/command/out_of_memory.h"

namespace echelon {

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr Seconds kTick{0.05};
constexpr Seconds kLookAtReports{0.5};
constexpr Seconds kPatience{2.5};      // for the others, once one rank has failed
constexpr Seconds kTerminateGrace{2};  // between SIGTERM and SIGKILL
constexpr size_t kTailLines = 5;

std::atomic<int> stop_requests{0};
std::atomic<int> first_stop_signal{0};
std::atomic<int> record_requests{0};

void note_signal(int signal) {
  if (stop_requests.fetch_add(1) == 0) first_stop_signal = signal == SIGUSR1 ? SIGTERM : signal;
}

void note_record_request(int) { record_requests.fetch_add(1); }

std::vector<std::string> last_lines(const std::string& path) {
  std::ifstream file(path);
  std::deque<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(printable(line));
    if (lines.size() > kTailLines) lines.pop_front();
  }
  return {lines.begin(), lines.end()};
}

class Watcher {
 public:
  explicit Watcher(const Watch& watch)
      : watch_(watch),
        monitor_(watch.reports_progress ? std::make_unique<Monitor>(watch.machines, watch.status_folder) : nullptr),
        output_(watch.starter),
        child_(Child::start(watch.child)) {
    memory_.look(now_seconds(), out_of_memory_kills());
  }

  Verdict run() {
    while (!child_.ended()) {
      pass_output();
      heed_stop_requests();
      heed_record_requests();
      if (!killed_ && Clock::now() - looked_ >= kLookAtReports) {  // those we kill are not those that failed
        looked_ = Clock::now();
        memory_.look(now_seconds(), out_of_memory_kills());
        heed_failed_ranks();
        heed_silent_ranks();
      }
      finish_kill();
    }
    ended_at_ = now_seconds();
    memory_.look(ended_at_, out_of_memory_kills());
    kill_orphans();
    drain();
    return verdict();
  }

 private:
  static double now_seconds() { return Seconds(Clock::now().time_since_epoch()).count(); }

  void pass_output() {
    std::string piece = child_.read_output(static_cast<int>(kTick.count() * 1000));
    piece.empty() ? output_.rest() : output_.take(piece);
    if (child_.output_closed()) usleep(20'000);
  }

  void heed_stop_requests() {
    int requests = stop_requests;
    if (requests == heeded_) return;
    if (requests > 1 || !watch_.saves_on_request) {
      terminate();
    } else {
      output_.say("stopping: this step is finished and saved first; once more to stop at once");
      child_.signal(SIGUSR1);
    }
    heeded_ = requests;
  }

  void heed_failed_ranks() {
    bool failed = false;
    lost_ranks_.clear();
    for (const RankReport& report : read_rank_reports(watch_.status_folder)) {
      bool lost = !report.exit_code && report.host == host_name() && kill(report.pid, 0) != 0 && errno == ESRCH;
      if (lost) lost_ranks_.push_back(report.rank);
      failed |= lost || (report.exit_code && *report.exit_code != 0 && *report.exit_code != 75);
    }
    if (!failed) {
      failed_since_.reset();
    } else if (!failed_since_) {
      failed_since_ = Clock::now();
    } else if (Clock::now() - *failed_since_ > kPatience) {
      kill_now();
    }
  }

  void heed_silent_ranks() {
    if (!monitor_ || failed_since_) return;
    for (const std::string& line : monitor_->look(now_seconds())) output_.say("echelon: " + line);
    const auto& hang = monitor_->hang();
    if (!hang) return;
    output_.say(fmt::format("no progress for {:.0f} s:", hang->seconds));
    for (const std::string& line : hang->ranks) output_.say("  " + line);
    write_flight_record();
    kill_now();
  }

  void heed_record_requests() {
    if (record_requests.exchange(0) > 0) write_flight_record();
  }

  void write_flight_record() {
    if (watch_.log_folder.empty()) return;
    std::string path;
    for (int number = 1; path.empty() || exists(path); ++number)
      path = join_path(watch_.log_folder, fmt::format("flight-{:03}.txt", number));
    try {
      write_file_atomically(path, flight_record(watch_.status_folder));
      output_.say("the last collectives of every rank: " + path);
    } catch (const Error& error) {
      output_.say(error.what());
    }
  }

  void terminate() {
    if (terminated_) return kill_now();
    terminated_ = Clock::now();
    killed_ = true;
    child_.signal_group(SIGTERM);
  }

  void finish_kill() {
    if (terminated_ && Clock::now() - *terminated_ > kTerminateGrace) kill_now();
  }

  void kill_now() {
    killed_ = true;
    child_.signal_group(SIGKILL);
  }

  // Whoever could still write is dead.
  void drain() {
    for (auto end = Clock::now() + Seconds(1); !child_.output_closed() && Clock::now() < end;)
      output_.take(child_.read_output(50));
    output_.finish();
  }

  Verdict verdict() {
    bool killed_for_a_rank = killed_ && heeded_ == 0;
    Verdict verdict = judge({.ending = *child_.ended(),
                             .starter = watch_.starter,
                             .reports = read_rank_reports(watch_.status_folder),
                             .starter_says = output_.verdict(),
                             .last_sentence = output_.sentence(),
                             .stop_signal = first_stop_signal,
                             .out_of_memory = memory_.is_recent(ended_at_),
                             .killed = killed_,
                             .lost_ranks = killed_for_a_rank ? lost_ranks_ : std::vector<int>(),
                             .lost_machine = monitor_ ? monitor_->lost_machine(ended_at_) : std::nullopt,
                             .hang = monitor_ ? monitor_->hang() : std::nullopt});
    explain(verdict);
    return verdict;
  }

  void explain(const Verdict& verdict) {
    if (verdict.died && !watch_.log_folder.empty()) {
      std::string log = join_path(watch_.log_folder, rank_file_stem(verdict.rank) + ".log");
      std::vector<std::string> lines = last_lines(log);
      if (!lines.empty()) output_.say(fmt::format("last lines of {}:", log));
      for (const std::string& line : lines) output_.say("  " + line);
    }
    bool unexplained = verdict.exit_code != 0 && verdict.rank < 0 && verdict.exit_code < 128;
    if (unexplained && !output_.noise().empty()) output_.say(output_.noise());
  }

  const Watch& watch_;
  std::unique_ptr<Monitor> monitor_;  // null: ranks do not tell what they are at
  RankOutput output_;
  Child child_;
  int heeded_ = 0;
  bool killed_ = false;
  Clock::time_point looked_ = Clock::now();
  std::optional<Clock::time_point> failed_since_, terminated_;
  std::vector<int> lost_ranks_;
  double ended_at_ = 0;
  OutOfMemory memory_;
};

}  // namespace

Verdict watch(const Watch& watch) { return Watcher(watch).run(); }

bool was_asked_to_stop() { return stop_requests > 0; }

void listen_for_signals() {
  struct sigaction action = {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaction(signal, &action, nullptr);
  action.sa_handler = note_record_request;
  sigaction(SIGUSR2, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  adopt_orphans();
}

}  // namespace echelon
