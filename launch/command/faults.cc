#include "launch/command/faults.h"

#include <csignal>

#include <sys/ptrace.h>
#include <unistd.h>

#include "cluster/base/descriptor.h"
#include "cluster/base/error.h"
#include "cluster/base/text.h"
#include "launch/command/file_faults.h"

namespace echelon {

namespace {

constexpr int kStopped = static_cast<int>(Error::Kind::stopped);
constexpr int kFolderInUse = static_cast<int>(Error::Kind::storage);
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

int ask_to_stop(DrillJob& job, std::mt19937_64&) {
  job.stop_on_request();
  job.start();
  return job.finish();
}

int ask_twice(DrillJob& job, std::mt19937_64&) {
  job.hit(job.launcher_pid(), SIGTERM);
  usleep(100'000);
  kill(job.launcher_pid(), SIGTERM);
  int code = job.finish();
  if (code != kStopped) job.expect("the run that was told twice to stop", code, 128 + SIGTERM);
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

/// As when its machine loses power, or a time limit has passed.
int kill_everything(DrillJob& job, std::mt19937_64&) {
  std::vector<pid_t> pids = job.rank_pids();
  for (const char* name : {"mpirun", "srun"})
    for (pid_t pid : job.processes(name)) pids.push_back(pid);
  job.hit(job.launcher_pid(), SIGKILL);
  for (pid_t pid : pids) kill(pid, SIGKILL);
  job.finish();
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
  job.expect("the second job", second.ended()->exit_code, kFolderInUse);
  return job.finish();
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
      {"all", "SIGKILL of every process of the run at once; the same command again",
       "goes on from the last checkpoint", kill_everything},
      {"second", "a second job for the same run folder", "the second ends with exit code 5, the first goes on",
       start_a_second_job},
      {"flip", "stopped, a bit of the newest checkpoint flipped; the same command again",
       "found; goes on from the checkpoint before", flip_in_a_checkpoint},
      {"cut", "stopped, a file of the newest checkpoint cut short; the same command again",
       "found; goes on from the checkpoint before", cut_a_checkpoint},
      {"lost", "stopped, a file of the newest checkpoint removed; the same command again",
       "found; goes on from the checkpoint before", lose_a_file},
      {"full", "files of checkpoints cannot be written whole, until one save has failed",
       "one warning, the run goes on, no step is repeated", fail_a_save},
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
