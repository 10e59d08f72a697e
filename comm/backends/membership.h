// What all groups of one rank share: patience, counters, the ledger, and word of failed ranks.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/base/error.h"
#include "comm/backends/lane.h"
#include "comm/group.h"
#include "comm/ledger/ledger.h"

namespace echelon {

/// Tells the ranks that can see this memory that one of them has failed. Zeroed memory is "no failure".
class Failure {
 public:
  /// Keeps the first failure; true when this was it.
  bool mark(int rank, std::string_view text);
  bool happened() const { return state_.load(std::memory_order_acquire) == kMarked; }
  /// Error::comm that names the failed rank and what it said.
  Error error() const;

 private:
  static constexpr int32_t kMarking = 1, kMarked = 2;
  std::atomic<int32_t> state_{0};
  int32_t rank_ = 0;
  char text_[1016] = {};
};

/// A send or recv under way. Whoever waits for anything advances all of the rank's transfers, so that two ranks that
/// send to each other cannot block each other.
class Transfer {
 public:
  virtual ~Transfer() = default;
  /// Moves what can be moved without waiting; true when all is done.
  virtual bool advance() = 0;
  /// What it waits for, for an error.
  virtual std::string waits_for() const = 0;
};

/// One rank's membership in a job.
class Membership : public std::enable_shared_from_this<Membership> {
 public:
  Membership(int world_rank, double timeout_seconds, bool checked, const std::string& ledger_path);

  /// Returns when `ready()`. Errors: Error::comm with `waits_for()` after the timeout, or when a rank has failed.
  template <class Ready, class WaitsFor>
  void wait_until(const Ready& ready, const WaitsFor& waits_for);
  /// Runs a part of a collective that moves `bytes` over MPI, in the background where that is possible; see Lane.
  Work run(int64_t bytes, std::function<void()> job) {
    return lane.run(transfers_.empty() ? bytes : 0, std::move(job));
  }
  /// Starts `transfer`, which found the lane empty; the Work waits for it.
  Work start(std::shared_ptr<Transfer> transfer);

  const int world_rank;
  const double timeout_seconds;
  const bool checked;
  bool crowded = false;               ///< more ranks than cores on this node: spinning would only hold up the others
  std::shared_ptr<Failure> failure;   ///< in memory that the ranks of the job share, as far as they share any
  std::shared_ptr<void> runtime;      ///< keeps MPI up while any group lives
  Ledger ledger;
  Lane lane{ledger};  ///< of MPI
  std::array<int64_t, 5> bytes_sent{};   ///< by Purpose
  double seconds = 0;

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr int kFewSpins = 64, kManySpins = 2000;   ///< some 2 µs, and some 50: far less than a time slice
  static constexpr int64_t kYields = 20'000;   ///< some 20 ms, after which a wait is long and a nap costs nothing

  /// Whether `ready()` within a moment.
  template <class Ready>
  bool spin(const Ready& ready);
  void wait(Transfer& transfer);
  void advance_transfers();
  void forget(Transfer* transfer) { std::erase(transfers_, transfer); }
  /// Gives the core away; false when time is up. Errors: as wait_until.
  bool pause(int64_t turn, Clock::time_point start);
  Error too_late(const std::string& waits_for);

  std::vector<Transfer*> transfers_;
  int spins_ = kManySpins;   ///< before the core is given away; fewer after spinning was in vain
};

template <class Ready>
bool Membership::spin(const Ready& ready) {
  if (ready()) return true;
  if (lane.here()) return false;  // the rank computes
  for (int spin = crowded ? spins_ : 0; spin < spins_; ++spin) {
    __builtin_ia32_pause();
    if (!ready()) continue;
    spins_ = std::min(kManySpins, 2 * spins_);
    return true;
  }
  // In vain: the others are at work, or one of them waits for this very core.
  spins_ = std::max(kFewSpins, spins_ / 2);
  return false;
}

template <class Ready, class WaitsFor>
void Membership::wait_until(const Ready& ready, const WaitsFor& waits_for) {
  if (spin(ready)) return;
  Clock::time_point start = Clock::now();
  for (int64_t turn = 0; !ready(); ++turn) {
    if (!pause(turn, start)) throw too_late(waits_for());
  }
}

}  // namespace echelon
