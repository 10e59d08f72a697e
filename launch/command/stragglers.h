// Which rank the others wait for, and how long.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "launch/options/rank_view.h"

namespace echelon {

/// A state machine over what the ledgers of ranks with one clock hold. A collective costs what lies between its last
/// rank's arrival and that of the one before; that cost is the last rank's. Over 10 s of training, a rank that costs at
/// least a fifth of the time, and four times what the next one does, is a straggler.
class Stragglers {
 public:
  /// Feeds on the ledgers, at any rhythm: what was seen before is not counted again. What is to be said of a straggler,
  /// at most once a minute of one rank: "rank 1 holds up the others: they waited for it 42 % of 10 s"; and where it was
  /// at its input at more than half of the looks that found it outside collectives, ", mostly at its input".
  std::optional<std::string> look(double now, const std::vector<SeenRank>& ranks);

 private:
  struct Arrival {
    double at = 0;
    int rank = 0;
  };
  using Key = std::pair<std::string, int64_t>;  // group, number in it

  struct Cost {
    double seconds = 0;
    int looks_outside = 0, looks_at_input = 0;

    bool is_of_input() const { return 2 * looks_at_input > looks_outside; }
  };

  std::map<Key, std::vector<Arrival>> arrivals_of(const std::vector<SeenRank>& ranks) const;
  void count(const std::vector<SeenRank>& ranks);
  std::optional<std::string> judge(double now);

  std::map<std::string, int64_t> counted_;  // by group: the highest number
  std::map<int, Cost> cost_;                // by rank
  double seconds_ = 0;                      // that the counted collectives span
  std::pair<int, double> said_ = {-1, 0};   // of which rank, and when
};

}  // namespace echelon
