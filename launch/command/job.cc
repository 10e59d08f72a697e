#include "launch/command/job.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string_view>

#include <gflags/gflags.h>

#include "cluster/base/error.h"

namespace echelon {

namespace {

constexpr int kMostRanksPerProcessor = 16;
// Ranks of a machine that mpirun cannot reach any more are ended by Open MPI's daemon there, once that many probes in a
// row were not answered. Open MPI's own settings wait for minutes; these let a link be down for 4 s.
const std::vector<std::pair<std::string, std::string>> kLostLinks = {{"OMPI_MCA_oob_tcp_keepalive_time", "2"},
                                                                     {"OMPI_MCA_oob_tcp_keepalive_intvl", "1"},
                                                                     {"OMPI_MCA_oob_tcp_keepalive_probes", "4"}};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

bool inside_allocation() { return !environment("SLURM_JOB_ID").empty(); }

int slurm_tasks() {
  std::string text = environment("SLURM_NTASKS");
  int tasks = 0;
  std::from_chars(text.data(), text.data() + text.size(), tasks);
  return tasks;
}

int count_ranks(const StartArguments& start, const Machine& machine, const Placement& placement) {
  if (start.ranks > 0) return start.ranks;
  if (placement.starter == Starter::srun && slurm_tasks() > 0) return slurm_tasks();
  if (!placement.hosts.empty()) return all_slots(placement.hosts);
  return std::max<int>(1, static_cast<int>(machine.gpus.size()));
}

int ranks_here(const Placement& placement) {
  int most = 0;
  for (const Host& host : placement.hosts) most = std::max(most, host.slots);
  return most > 0 ? std::min(most, placement.ranks) : placement.ranks;
}

void check_count(const Placement& placement, const Machine& machine) {
  if (!placement.hosts.empty() && placement.ranks > all_slots(placement.hosts)) {
    throw Error::usage("--ranks",
                       fmt::format("{} ranks on hosts with room for {}", placement.ranks, all_slots(placement.hosts)));
  }
  bool here = placement.hosts.empty() && placement.starter != Starter::srun;
  if (here && placement.ranks > kMostRanksPerProcessor * machine.processors) {
    throw Error::usage("--ranks", fmt::format("{} ranks on {} processors", placement.ranks, machine.processors))
        .expected(fmt::format("at most {} a processor", kMostRanksPerProcessor));
  }
}

std::string program(const std::string& name, const std::string& remedy) {
  std::string path = find_program(name);
  if (path.empty()) throw Error::recipe(name, "not found on PATH").remedy(remedy);
  return path;
}

Starter choose_starter(const StartArguments& start) {
  if (start.launcher == "srun" && !inside_allocation()) {
    throw Error::recipe("--launcher=srun", "not inside a Slurm allocation").remedy("start it from salloc or sbatch");
  }
  bool slurm =
      start.launcher == "srun" || (start.launcher == "auto" && inside_allocation() && !find_program("srun").empty() &&
                                   start.hosts.empty() && start.hostfile.empty());
  return slurm ? Starter::srun : Starter::mpirun;
}

// Whole processors for each rank, when they are enough; otherwise the kernel shares them out.
std::vector<std::string> binding(const Placement& placement, const Machine& machine) {
  if (!placement.hosts.empty() || !machine.pinnable || placement.ranks > machine.processors)
    return {"--bind-to", "none"};
  std::vector<std::string> flags = {"--map-by", fmt::format("slot:PE={}", placement.threads), "--bind-to",
                                    machine.several_per_core ? "hwthread" : "core"};
  if (machine.several_per_core) flags.push_back("--use-hwthread-cpus");
  return flags;
}

template <class T>
void append(std::vector<T>& to, const std::vector<T>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

std::vector<std::string> mpirun_arguments(const Placement& placement, const Machine& machine) {
  std::vector<std::string> arguments = {placement.program, "-n", std::to_string(placement.ranks), "--oversubscribe"};
  append(arguments, binding(placement, machine));
  if (!placement.hosts.empty()) append(arguments, {"--host", hosts_text(placement.hosts), "-x", "OMP_NUM_THREADS"});
  return arguments;
}

std::vector<std::string> srun_arguments(const Placement& placement) {
  return {placement.program, "--mpi=pmix", "--kill-on-bad-exit=1", "--ntasks=" + std::to_string(placement.ranks)};
}

}  // namespace

Placement place_ranks(const StartArguments& start, const Machine& machine) {
  Placement placement;
  placement.starter = choose_starter(start);
  if (!start.hosts.empty()) placement.hosts = parse_hosts(start.hosts);
  if (!start.hostfile.empty()) placement.hosts = read_hostfile(start.hostfile);
  placement.ranks = count_ranks(start, machine, placement);
  check_count(placement, machine);
  if (placement.starter == Starter::mpirun && placement.ranks == 1 && placement.hosts.empty())
    placement.starter = Starter::direct;
  placement.threads = std::max(1, machine.processors / ranks_here(placement));
  if (placement.starter == Starter::mpirun)
    placement.program = program("mpirun", "install Open MPI: apt-get install openmpi-bin");
  if (placement.starter == Starter::srun)
    placement.program = program("srun", "install Slurm's client, or use --launcher=mpirun");
  return placement;
}

std::vector<std::string> machines_of(const Placement& placement) {
  std::vector<std::string> names;
  for (const Host& host : placement.hosts) names.push_back(host.name);
  if (!names.empty() || !inside_allocation() || placement.starter == Starter::direct) return names;
  // Addresses, for Slurm may know its nodes by names that nobody else knows.
  std::string scontrol = find_program("scontrol");
  std::istringstream nodes(output_of({scontrol, "show", "node", environment("SLURM_JOB_NODELIST")}, 10));
  constexpr std::string_view kAddress = "NodeAddr=";
  for (std::string word; nodes >> word;) {
    if (word.starts_with(kAddress)) names.push_back(word.substr(kAddress.size()));
  }
  return names;
}

std::vector<std::string> rank_arguments_of(const CommandLine& line) {
  static const std::vector<std::string> for_the_launcher = {"hosts", "hostfile", "launcher", "max_restarts", "ranks",
                                                            "submit", "nodes", "time", "partition", "seconds_to_save"};
  std::vector<std::string> arguments = {line.command->name};
  for (const std::string& name : line.command->flags) {
    if (std::find(for_the_launcher.begin(), for_the_launcher.end(), name) != for_the_launcher.end()) continue;
    gflags::CommandLineFlagInfo info;
    gflags::GetCommandLineFlagInfo(name.c_str(), &info);
    if (!info.is_default) arguments.push_back(fmt::format("--{}={}", name, info.current_value));
  }
  arguments.push_back("--");
  // mpirun takes a colon alone for the beginning of another program.
  for (const std::string& name : line.names) arguments.push_back(name == ":" ? "./:" : name);
  append(arguments, line.overrides);
  return arguments;
}

ChildOptions child_of(const Placement& placement, const Machine& machine, const std::string& rank_program,
                      const std::vector<std::string>& rank_arguments) {
  ChildOptions options;
  if (placement.starter == Starter::mpirun) options.arguments = mpirun_arguments(placement, machine);
  if (placement.starter == Starter::srun) options.arguments = srun_arguments(placement);
  options.arguments.push_back(rank_program);
  append(options.arguments, rank_arguments);
  options.environment = {{"OMP_NUM_THREADS", std::to_string(placement.threads)},
                         {"OMPI_ALLOW_RUN_AS_ROOT", "1"},
                         {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
                         {"OMPI_MCA_btl_vader_single_copy_mechanism", "none"},  // many containers forbid it, noisily
                         // Other work on the same processors gets its turn while ranks wait for each other.
                         {"OMPI_MCA_mpi_yield_when_idle", "1"}};
  if (!placement.hosts.empty()) append(options.environment, kLostLinks);
  options.capture_stderr = true;
  return options;
}

}  // namespace echelon
