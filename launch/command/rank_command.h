// Commands that ranks carry out: train, batches, eval, forward, generate, export.
#pragma once

#include "launch/options/arguments.h"
#include "launch/options/installation.h"

namespace echelon {

/// Checks what can be checked here, starts the ranks, watches over them, restarts them where that helps.
/// Returns the exit code when ranks ended well. Errors: Error of the kind of the cause, for everything else.
int run_rank_command(const CommandLine& line, const Installation& installation);

/// The last line of a command that failed, and its exit code: thrown where there is no Error object any more, only the
/// sentence a rank left.
struct Failed {
  int exit_code;
  std::string sentence;
};

}  // namespace echelon
