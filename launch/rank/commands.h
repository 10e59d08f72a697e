// The commands that run on ranks.
#pragma once

#include "comm/session.h"
#include "launch/options/arguments.h"

namespace echelon {

/// From here on USR1 (from the launcher), TERM and INT ask training to stop behind a checkpoint.
void stop_on_signals();

// Each returns the exit code, and throws Error. Collective.
int run_train(const CommandLine& line, Session& session);
int run_batches(const CommandLine& line, Session& session);
int run_eval(const CommandLine& line, Session& session);
int run_forward(const CommandLine& line, Session& session);
int run_generate(const CommandLine& line, Session& session);
int run_export(const CommandLine& line, Session& session);
int run_merge(const CommandLine& line, Session& session);
int run_unmerge(const CommandLine& line, Session& session);

}  // namespace echelon
