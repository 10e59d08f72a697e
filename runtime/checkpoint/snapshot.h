// What a rank saves, held still while training goes on.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "runtime/checkpoint/shard_plan.h"

namespace echelon {

/// Masters and optimizer state change only in updates. Until the next one a thread reads them where they are; what it
/// has not come to by then is copied. So a fast disk costs training nothing, and a slow one the copy of what remains.
class Snapshot {
 public:
  /// Takes memory for a whole copy and touches every page, so that no copy waits for the system. Kept for later
  /// snapshots. Errors: Error::memory when the host has not so much left.
  void reserve(int64_t bytes);
  /// Takes hold of the values of `plan`, for which there must be room. Collective.
  void take(Trainer& trainer, ShardPlan plan);
  const ShardPlan& plan() const { return plan_; }
  /// Copies what visit() has not come to: from now on values may change. Any thread but the one that visits.
  void let_go();
  /// Hands out all pieces, in the plan's order.
  using Write = std::function<void(const std::string& name, const std::byte* bytes, size_t size, size_t offset)>;
  void visit(const Write& write);

 private:
  enum class State { here, in_use, copied, done };
  /// A part of a tensor, small enough that nobody waits long for the other.
  struct Piece {
    const std::string* name;
    size_t offset, size;
    const std::byte* here;
    std::byte* copy;
    std::atomic<State> state{State::here};

    bool begin() {
      State before = State::here;
      return state.compare_exchange_strong(before, State::in_use);
    }
    void end(State after) {
      state = after;
      state.notify_all();
    }
  };
  void add_pieces(const std::string& name, const at::Tensor& values, std::byte* copy, bool copied);

  ShardPlan plan_;
  at::Tensor memory_;
  std::vector<at::Tensor> sources_;  // what pieces point to
  std::deque<Piece> pieces_;
};

}  // namespace echelon
