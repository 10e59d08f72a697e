// The rank program: one process of a job. Started by `echelon`, or by hand with mpirun or srun; same arguments.
#include <csignal>
#include <cstdio>
#include <functional>
#include <map>

#include <sys/prctl.h>

#include <c10/util/Exception.h>

#include "cluster/base/bus_error.h"
#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "comm/session.h"
#include "launch/options/arguments.h"
#include "launch/options/core_dumps.h"
#include "launch/options/heart.h"
#include "launch/options/rank_status.h"
#include "launch/rank/commands.h"
#include "runtime/memory.h"

namespace echelon {
namespace {

using Runner = std::function<int(const CommandLine&, Session&)>;

const std::map<std::string, Runner>& runners() {
  static const std::map<std::string, Runner> all{
      {"train", run_train}, {"batches", run_batches}, {"eval", run_eval},
      {"forward", run_forward}, {"generate", run_generate}, {"export", run_export},
      {"merge", run_merge}, {"unmerge", run_unmerge}};
  return all;
}

int run(const CommandLine& line, Session& session) {
  auto runner = runners().find(line.command->name);
  if (runner == runners().end()) throw Error::usage(line.command->name, "is no command of a rank");
  return runner->second(line, session);
}

/// Ends this rank with the error's code. Others may wait for it in a collective: they are ended too.
[[noreturn]] void fail(Session& session, const RankStatus& status, const Error& error) {
  status.ended(error.exit_code(), error.what());
  std::fprintf(stderr, "echelon: %s\n", error.what());
  std::fflush(stderr);
  session.abort(error.exit_code());
}

/// A rank does not outlive what started it, however that ended.
void die_with_starter() { prctl(PR_SET_PDEATHSIG, SIGKILL); }

int rank_main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--version") {
    std::printf("echelon-rank %s\n", ECHELON_VERSION);
    return 0;
  }
  keep_large_blocks();
  std::signal(SIGUSR2, SIG_IGN);   // a request for the flight record, which the launcher writes
  std::signal(SIGXFSZ, SIG_IGN);   // a file that may not grow is an error of that write, as on a full disk
  CommandLine line = parse_command_line({argv + 1, argv + argc});
  // Before anything slow: a request that comes early must not end the rank.
  if (line.command->name == "train") stop_on_signals();
  std::string status_folder = rank_arguments().status_folder;
  if (!status_folder.empty()) die_with_starter();
  SessionOptions options;
  // Beside the status, where the launcher reads what a dead rank was doing.
  if (!status_folder.empty()) options.ledger_path = join_path(status_folder, "ledger-{rank}.bin");
  Session session = Session::join(argc, argv, options);
  RankStatus status(status_folder, session.world().rank());
  Heart heart(status_folder, session.world().rank());
  try {
    int code = run(line, session);
    status.ended(code, "");
    return code;
  } catch (const Error& error) {
    fail(session, status, error);
  } catch (const std::bad_alloc&) {
    fail(session, status, Error::memory("", "an allocation failed").remedy("use more ranks, or a smaller batch.micro"));
  } catch (const c10::Error& error) {
    fail(session, status, Error::internal("", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    fail(session, status, Error::internal("", error.what()));
  }
}

}  // namespace
}  // namespace echelon

int main(int argc, char** argv) {
  echelon::leave_no_core();
  echelon::name_file_on_bus_error();
  try {
    return echelon::rank_main(argc, argv);
  } catch (const echelon::Error& error) {
    std::fprintf(stderr, "echelon: %s\n", error.what());
    return error.exit_code();
  }
}
