// Watches over the ranks of one command from start to end.
#pragma once

#include <functional>
#include <string>

#include "launch/command/job.h"
#include "launch/command/verdict.h"

namespace echelon {

struct Watch {
  ChildOptions child;
  Starter starter = Starter::direct;
  std::vector<std::string> machines;  ///< that ranks run on; empty: this one
  std::string status_folder;      ///< where ranks report; made and emptied by the caller
  std::string log_folder;         ///< holds rank-00003.log; empty: none
  bool saves_on_request = false;  ///< SIGUSR1 makes the ranks finish their step, save and end with 75
  bool reports_progress = false;  ///< ranks tell what they are at, and one that stands still is found (liveness.h)
};

/// Starts the child and waits for its end. SIGINT, SIGTERM, SIGHUP and SIGUSR1 ask the ranks to stop, a second one
/// kills them. SIGUSR2 writes the last collectives of all ranks to the log folder. A rank that failed or died takes the
/// others with it within 5 seconds, also when mpirun does not see it. Nothing that was started is left behind.
/// Afterwards `was_asked_to_stop()` tells whether a signal came.
Verdict watch(const Watch& watch);

bool was_asked_to_stop();

/// From now on the signals above are noticed instead of ending this process, and orphaned ranks become its children.
void listen_for_signals();

}  // namespace echelon
