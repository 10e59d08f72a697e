// How the ranks of one command are started: the program, its arguments and its environment.
#pragma once

#include <string>
#include <vector>

#include "launch/command/child.h"
#include "launch/command/hosts.h"
#include "launch/command/machine.h"
#include "launch/options/arguments.h"
#include "launch/options/installation.h"

namespace echelon {

enum class Starter { direct, mpirun, srun };

/// Where ranks run.
struct Placement {
  Starter starter = Starter::direct;
  int ranks = 1;
  std::vector<Host> hosts;  ///< empty: this machine, or the Slurm allocation
  int threads = 1;          ///< of each rank
  std::string program;      ///< mpirun or srun
};

/// Decides from flags, machine and environment. Errors: Error::usage for what cannot be meant (far more ranks than
/// processors), Error::recipe when mpirun or srun is missing or there is no allocation.
Placement place_ranks(const StartArguments& start, const Machine& machine);

/// The machines that ranks are placed on, as far as flags or Slurm name them; empty: this one.
std::vector<std::string> machines_of(const Placement& placement);

/// Arguments that give a rank program the command line that was typed, start flags left out. `--flag=value` and `--`
/// keep every value in its place, whatever it holds.
std::vector<std::string> rank_arguments_of(const CommandLine& line);

/// The process to start for these ranks.
ChildOptions child_of(const Placement& placement, const Machine& machine, const std::string& rank_program,
                      const std::vector<std::string>& rank_arguments);

}  // namespace echelon
