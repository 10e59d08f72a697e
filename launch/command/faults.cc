#include "launch/command/faults.h"

#include <csignal>
#include <filesystem>
#include <fstream>

#include <sys/ptrace.h>
#include <unistd.h>

#include "cluster/base/descriptor.h"
#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "cluster/base/text.h"

namespace echelon {

namespace {

constexpr int kStopped = 75;  // exit code of a run that was asked to stop
constexpr int kFolderInUse = 5;
constexpr unsigned kPauseSeconds = 2;
constexpr int kSlowTurns = 40;             // of a rank that has a tenth of its time
constexpr useconds_t kSlowMicroseconds = 10'000;

pid_t any_rank(const DrillJob& job, std::mt19937_64& random) {
  std::vector<pid_t> pids = job.rank_pids();
  if (pids.empty()) throw Error::recipe("drill", "no rank of the run is on this machine");
  return pids[random() % pids.size()];
}

/// One signal to one rank, which the launcher answers with a restart.
template <int kSignal>
int signal_a_rank(DrillJob& job, std::mt19937_64& random) {
  job.hit(any_rank(job, random), kSignal);
  return job.finish();
}

int pause_a_rank(DrillJob& job, std::mt19937_64& random) {
  pid_t rank = any_rank(job, random);
  job.hit(rank, SIGSTOP);
  sleep(kPauseSeconds);
  kill(rank, SIGCONT);
  return job.finish();
}

/// It runs a tenth of the time, as one does whose processor is throttled.
int slow_a_rank(DrillJob& job, std::mt19937_64& random) {
  pid_t rank = any_rank(job, random);
  for (int turn = 0; turn < kSlowTurns && job.is_running(); ++turn) {
    job.hit(rank, SIGSTOP);
    usleep(9 * kSlowMicroseconds);
    kill(rank, SIGCONT);
    usleep(kSlowMicroseconds);
  }
  return job.finish();
}

/// A debugger's hold: from outside the rank looks alive.
int hold_a_rank(DrillJob& job, std::mt19937_64& random) {
  pid_t rank = any_rank(job, random);
  job.fault_begins();
  if (ptrace(PTRACE_SEIZE, rank, nullptr, nullptr) != 0 || ptrace(PTRACE_INTERRUPT, rank, nullptr, nullptr) != 0)
    throw system_error(Error::Kind::recipe, fmt::format("process {}", rank), "hold");
  return job.finish();
}

int kill_the_starter(DrillJob& job, std::mt19937_64&) {
  for (const char* name : {"mpirun", "srun"}) {
    if (std::vector<pid_t> starters = job.processes(name); !starters.empty()) {
      job.hit(starters.front(), SIGKILL);
      return job.finish();
    }
  }
  throw Error::recipe("drill", "the run has no starter of its ranks").remedy("--ranks=2");
}

void expect(const std::string& whose, int exit_code, int expected, const DrillJob& job) {
  if (exit_code == expected) return;
  throw Error::internal("drill", fmt::format("{} ended with exit code {}", whose, exit_code))
      .expected(std::to_string(expected))
      .got(job.last_words());
}

int ask_to_stop(DrillJob& job, std::mt19937_64&) {
  job.hit(job.launcher_pid(), SIGTERM);
  expect("the run that was asked to stop", job.finish(), kStopped, job);
  job.start();
  return job.finish();
}

int ask_twice(DrillJob& job, std::mt19937_64&) {
  job.hit(job.launcher_pid(), SIGTERM);
  usleep(100'000);
  kill(job.launcher_pid(), SIGTERM);
  int code = job.finish();
  if (code != kStopped) expect("the run that was told twice to stop", code, 128 + SIGTERM, job);
  job.start();
  return job.finish();
}

int kill_the_launcher(DrillJob& job, std::mt19937_64&) {
  job.hit(job.launcher_pid(), SIGKILL);
  job.finish();
  for (int tenths = 0; !job.rank_pids().empty(); ++tenths) {
    if (tenths == 100) throw Error::internal("drill", "ranks outlive their launcher by 10 s");
    usleep(100'000);
  }
  job.start();
  return job.finish();
}

int start_a_second_job(DrillJob& job, std::mt19937_64&) {
  job.fault_begins();
  std::vector<std::string> words = command_line_of(job.launcher_pid());
  Child second = Child::start({.arguments = words, .capture_stderr = true});
  while (!second.ended()) second.read_output(10);
  if (second.ended()->exit_code == 0 && !job.is_running())
    throw Error::recipe("steps", "the run was over before the second job had started")
        .remedy("give the recipe more steps");
  expect("the second job", second.ended()->exit_code, kFolderInUse, job);
  return job.finish();
}

std::filesystem::path newest_checkpoint(const std::string& run) {
  std::filesystem::path newest;
  for (const std::string& name : list_folder(join_path(run, "checkpoints")))
    if (name.starts_with("step-")) newest = std::filesystem::path(run) / "checkpoints" / name;
  if (newest.empty()) throw Error::recipe("checkpoint", "the run has no checkpoint to damage");
  return newest;
}

/// The largest file of a folder: where a random bit most likely lies.
std::filesystem::path largest_file(const std::filesystem::path& newest) {
  std::filesystem::path largest;
  for (const auto& entry : std::filesystem::directory_iterator(newest))
    if (largest.empty() || entry.file_size() > file_size(largest)) largest = entry.path();
  return largest;
}

void flip_a_bit(const std::filesystem::path& path, std::mt19937_64& random) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  auto place = static_cast<std::streamoff>(random() % file_size(path));
  file.seekg(place);
  char byte = static_cast<char>(file.get() ^ (1 << random() % 8));
  file.seekp(place);
  file.put(byte);
}

/// Stopped, its newest checkpoint changed, and the same command again.
template <class Damage>
int damage_a_checkpoint(DrillJob& job, Damage damage) {
  job.hit(job.launcher_pid(), SIGTERM);
  expect("the run that was asked to stop", job.finish(), kStopped, job);
  damage(newest_checkpoint(job.folder()));
  job.start();
  return job.finish();
}

int flip_in_a_checkpoint(DrillJob& job, std::mt19937_64& random) {
  return damage_a_checkpoint(job, [&](const auto& folder) { flip_a_bit(largest_file(folder), random); });
}

int cut_a_checkpoint(DrillJob& job, std::mt19937_64& random) {
  return damage_a_checkpoint(job, [&](const auto& folder) {
    auto file = largest_file(folder);
    resize_file(file, random() % file_size(file));
  });
}

int lose_a_file(DrillJob& job, std::mt19937_64&) {
  return damage_a_checkpoint(job, [](const auto& folder) { remove(largest_file(folder)); });
}

}  // namespace

const std::vector<Fault>& faults() {
  static const std::vector<Fault> faults = {
      {"kill", "SIGKILL of a rank", "named, and started again by the launcher", signal_a_rank<SIGKILL>},
      {"crash", "SIGSEGV of a rank", "named, and started again by the launcher", signal_a_rank<SIGSEGV>},
      {"abort", "SIGABRT of a rank", "named, and started again by the launcher", signal_a_rank<SIGABRT>},
      {"pause", "SIGSTOP of a rank, SIGCONT two seconds later", "the run goes on, no step is repeated", pause_a_rank},
      {"stop", "SIGSTOP of a rank, for good", "named as stopped, killed, and started again by the launcher",
       signal_a_rank<SIGSTOP>},
      {"hold", "a rank held as by a debugger, for good", "named, killed, and started again by the launcher",
       hold_a_rank},
      {"slow", "a rank that runs a tenth of the time for four seconds", "the run goes on, no step is repeated",
       slow_a_rank},
      {"starter", "SIGKILL of mpirun or srun", "the ranks end, and are started again by the launcher",
       kill_the_starter},
      {"request", "SIGTERM of the launcher; the same command again", "saved, exit code 75, no step is repeated",
       ask_to_stop},
      {"twice", "SIGTERM of the launcher twice; the same command again",
       "no rank is left; goes on from the last checkpoint", ask_twice},
      {"launcher", "SIGKILL of the launcher; the same command again",
       "no rank is left; goes on from the last checkpoint", kill_the_launcher},
      {"second", "a second job for the same run folder", "the second ends with exit code 5, the first goes on",
       start_a_second_job},
      {"flip", "stopped, a bit of the newest checkpoint flipped; the same command again",
       "found; goes on from the checkpoint before", flip_in_a_checkpoint},
      {"cut", "stopped, a file of the newest checkpoint cut short; the same command again",
       "found; goes on from the checkpoint before", cut_a_checkpoint},
      {"lost", "stopped, a file of the newest checkpoint removed; the same command again",
       "found; goes on from the checkpoint before", lose_a_file},
  };
  return faults;
}

const Fault& find_fault(const std::string& name) {
  std::vector<std::string> names;
  for (const Fault& fault : faults()) {
    if (fault.name == name) return fault;
    names.push_back(fault.name);
  }
  std::string near = did_you_mean(name, names);
  throw Error::usage(printable(name), "no such fault")
      .remedy(near.empty() ? "`echelon drill --list` lists them" : near);
}

}  // namespace echelon
