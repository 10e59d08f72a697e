// A copy of what a rank saves, in host memory.
#pragma once

#include <cstddef>
#include <functional>

#include <ATen/core/Tensor.h>

#include "runtime/checkpoint/shard_plan.h"

namespace echelon {

/// Its memory is used again by the next copy: it grows with the first and stays.
class Snapshot {
 public:
  /// Touches every page, so that no copy waits for the system. Errors: Error::memory when the host has not so much
  /// left.
  void reserve(int64_t bytes);
  /// Copies the values of `plan`, for which there must be room. Collective.
  void take(Trainer& trainer, ShardPlan plan);
  const ShardPlan& plan() const { return plan_; }
  /// Hands out the copied tensors, in the plan's order.
  void visit(const std::function<void(const std::string& name, const std::byte* bytes, size_t size)>& write) const;

 private:
  ShardPlan plan_;
  at::Tensor memory_;
};

}  // namespace echelon
