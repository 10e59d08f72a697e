// Whether it is the network that has made steps slow.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "launch/options/rank_view.h"

namespace echelon {

/// A state machine over how ranks look. Time at which every one of them is inside a collective is the network's: nobody
/// is waited for. When a step takes at least half as long again as it did at best, and the network's time makes up for
/// most of that, the network has become slow, or ranks lack the processor time to serve it. Of one that was slow from
/// the start nothing is known.
class SlowNetwork {
 public:
  /// `now`: seconds of a clock that never goes back; at any rhythm that sees a few moments of a step. What is to be
  /// said, at most once a minute: "the network has become slow, or processors are busy otherwise: a step takes 3.1 s,
  /// 1.0 s at best; for 2.4 s of it every rank is inside a collective".
  std::optional<std::string> look(double now, const std::vector<RankView>& ranks);

 private:
  struct Window {
    double seconds = 0, network_seconds = 0;  // in steps
    int64_t steps = 0;

    Window per_step() const;
  };

  void count(double seconds, const std::vector<RankView>& ranks);
  std::optional<std::string> judge(double now, const Window& step);

  double last_look_ = -1, said_ = -1e9;
  int64_t last_step_ = 0;
  Window window_;
  std::optional<Window> best_;  // of one step
};

}  // namespace echelon
