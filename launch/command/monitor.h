// What the launcher notices of ranks that run, and what it says of them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "launch/command/heartbeats.h"
#include "launch/command/liveness.h"
#include "launch/command/slow_network.h"
#include "launch/command/stragglers.h"

namespace echelon {

/// Looks at the ranks of this machine and listens to those of others.
class Monitor {
 public:
  /// `machines`: that ranks run on; empty: this one. Errors: Error::storage, Error::recipe.
  Monitor(const std::vector<std::string>& machines, const std::string& status_folder);

  /// Looks once; what is to be said, a line each. `now`: seconds of a clock that never goes back.
  std::vector<std::string> look(double now);
  /// What the last look found; nothing when the ranks come on.
  const std::optional<Hang>& hang() const { return hang_; }
  /// Once the job has ended.
  std::optional<LostMachine> lost_machine(double now);

 private:
  void listen(double now, std::vector<RankView>& views, std::vector<std::string>& said);

  std::string status_folder_;
  std::unique_ptr<Heartbeats> heartbeats_;  // null: all ranks are here
  Liveness liveness_;
  Stragglers stragglers_;
  SlowNetwork network_;
  std::optional<Hang> hang_;
};

}  // namespace echelon
