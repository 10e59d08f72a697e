// Which rank the others wait for, and how long.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "comm/ledger/ledger.h"

namespace echelon {

/// The last collectives of several ranks, whose clock is the same.
using Collectives = std::map<int, std::vector<LedgerEntry>>;

/// A state machine over what ranks' ledgers hold. A collective costs what lies between its last rank's arrival and that
/// of the one before; that cost is the last rank's. Over 10 s of training, a rank that costs at least a fifth of the
/// time, and four times what the next one does, is a straggler.
class Stragglers {
 public:
  /// Feeds on the ledgers, at any rhythm: what was seen before is not counted again. What is to be said of a straggler,
  /// at most once a minute of one rank: "rank 1 holds up the others: they waited for it 42 % of 10 s".
  std::optional<std::string> look(double now, const Collectives& ranks);

 private:
  struct Arrival {
    double at = 0;
    int rank = 0;
  };
  using Key = std::pair<std::string, int64_t>;  // group, number in it

  std::map<Key, std::vector<Arrival>> arrivals_of(const Collectives& ranks) const;
  void count(const Collectives& ranks);
  std::optional<std::string> judge(double now);

  std::map<std::string, int64_t> counted_;  // by group: the highest number
  std::map<int, double> cost_;              // seconds, by rank
  double seconds_ = 0;                      // that the counted collectives span
  std::pair<int, double> said_ = {-1, 0};   // of which rank, and when
};

}  // namespace echelon
