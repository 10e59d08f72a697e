// `echelon train --submit`: the run as a batch job of Slurm, which goes on by itself after it was stopped.
#pragma once

#include <string>
#include <vector>

#include "launch/options/commands.h"
#include "launch/options/installation.h"

namespace echelon {

/// The text as one word of a POSIX shell, whatever it holds.
std::string quoted_for_shell(const std::string& text);

/// The batch script that runs `command` and puts its job back into the queue when it ended on request (exit code 75).
std::string batch_script(const std::vector<std::string>& command);

/// Checks the recipe, writes `submit.sh` into the run folder, hands it to sbatch and prints the job's number.
/// Errors: Error::usage without --ranks; Error::recipe when Slurm's sbatch is missing or refuses.
void submit(const CommandLine& line, const Installation& installation);

}  // namespace echelon
