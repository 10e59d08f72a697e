// Whether ranks that are alive come on; if not, which one holds up the others.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "launch/options/rank_status.h"
#include "launch/options/rank_view.h"

namespace echelon {

/// A rank that holds up the job. Reads on behind "rank 2: ".
struct Hang {
  int rank = -1;                   ///< -1: every rank is there
  std::string host;                ///< the rank's; empty: this machine
  std::string what;                ///< the same for the same failure
  double seconds = 0;              ///< without progress
  std::vector<std::string> ranks;  ///< one line each
};

/// A state machine without clock or processes of its own. The job hangs when no rank has come on for longer than its
/// phase allows: max(9 s, 5 x the 99th percentile of a step) once some steps are done, 600 s before; 600 s while
/// evaluating (a batch) or saving; 1800 s while starting or finishing. Named in any phase: a process that is stopped
/// and does not come on, after 6 s, and one on another machine that is not heard of, after 4.5 s.
class Liveness {
 public:
  /// `now`: seconds of a clock that never goes back. May be called at any rhythm.
  std::optional<Hang> look(double now, const std::vector<RankView>& ranks);
  /// Seconds without progress that the phase allows now.
  double limit(Phase phase) const;

 private:
  struct Still {
    double since = 0;
    int64_t beats = 0;
  };

  std::optional<Hang> find_still(double now, const std::vector<RankView>& ranks);
  void learn(double seconds, const ProgressState& before, const ProgressState& now);
  Hang blame(double now, const std::vector<RankView>& ranks) const;

  std::vector<RankView> last_;
  double last_look_ = 0, progress_at_ = 0;
  std::map<int, Still> still_;  // ranks that are stopped or silent
  std::deque<double> step_seconds_;
  double in_step_ = 0;  // seconds spent in the phases of the present step
};

/// The ranks of this machine that have reported to the folder and not ended.
std::vector<SeenRank> look_at_ranks(const std::string& status_folder);

/// The last collectives of all ranks that left a ledger in the folder, as text.
std::string flight_record(const std::string& status_folder);

}  // namespace echelon
