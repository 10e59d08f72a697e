// One rank's membership in a job, from start to end.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "comm/group.h"

namespace echelon {

struct SessionOptions {
  std::string backend =
      "auto";  ///< self | thread | mpi | nccl; auto: nccl where a GPU is visible, mpi under a launcher, else self
  double timeout_seconds = 600;  ///< a collective that waits longer is an Error::comm
  bool checked = true;           ///< compare every collective's signature across ranks before the wire
  int ranks_per_node = 0;        ///< neighbours that share memory, for tests; 0: as the machines are
  std::string ledger_path;       ///< file of the ledger of collectives, "{rank}" stands for the rank; empty: in memory
};

/// Joins the job (MPI_Init on first use) and leaves it on destruction. `main` makes one and hands references down.
class Session {
 public:
  static Session join(int& argc, char**& argv, SessionOptions options);
  /// A session of this process alone: no launcher, no MPI.
  static Session alone(SessionOptions options = {});
  Session(Session&&) noexcept;
  ~Session();

  const Group& world() const;
  int local_rank() const;  ///< among the ranks of this node
  int local_size() const;
  const std::string& backend() const;  ///< the backend that was chosen
  /// Ends the whole job at once with this exit code, without a collective; for a rank that has failed.
  [[noreturn]] void abort(int exit_code);

 private:
  struct State;
  explicit Session(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Runs `rank_main` on `ranks` threads of this process, each with its own world Group (backend `thread`). An exception
/// of one rank makes the collectives of the others throw Error::comm, and is rethrown here.
void run_thread_ranks(int ranks, const std::function<void(const Group& world)>& rank_main,
                      const SessionOptions& options = {});

}  // namespace echelon
