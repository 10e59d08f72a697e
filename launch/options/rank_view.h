// What one rank looks like from outside: how far it is and which collective it is in.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "comm/ledger/ledger.h"
#include "comm/ledger/rank_progress.h"

namespace echelon {

constexpr double kUnheardSeconds = 3;  ///< after which a rank on another machine counts as not heard of

struct RankView {
  int rank = 0;
  std::string host;          ///< empty: this machine
  char process_state = 'R';  ///< as in /proc/PID/stat: T is stopped; '?': on another machine and not heard of
  ProgressState progress;
  bool inside = false;                       ///< of a collective
  std::string collective;                    ///< the last one it entered; empty: none yet
  std::string group;                         ///< of that collective; empty for one between two ranks
  int64_t sequence = 0;                      ///< its number in the group
  std::map<std::string, int64_t> completed;  ///< by group: the highest number that it has left

  bool operator==(const RankView&) const = default;
};

/// A rank whose files are at hand.
struct SeenRank {
  RankView view;
  std::vector<LedgerEntry> collectives;  ///< the last ones, oldest first; none when it left no ledger
};

/// What the rank has left in the folder for reports, but for host and process.
SeenRank read_rank(const std::string& status_folder, int rank);

}  // namespace echelon
