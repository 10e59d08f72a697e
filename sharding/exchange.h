// How gradients travel from the ranks that computed them to the ranks that own them.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

#include "comm/group.h"

namespace echelon {

/// Reduces one Unit's gradient over the data parallel ranks.
class Exchange {
 public:
  virtual ~Exchange() = default;
  /// `full` [size * n] holds this rank's sum over its samples; `owned` is [n] (its shard) or [size * n] (all of it, where
  /// every rank owns everything), and may be a part of `full`. With `accumulate` the result is added to `owned`.
  virtual Work reduce(const Group& group, const std::string& unit, at::Tensor& full, at::Tensor& owned, bool accumulate) = 0;
};

/// Sums in full precision.
class ExactExchange : public Exchange {
 public:
  Work reduce(const Group& group, const std::string& unit, at::Tensor& full, at::Tensor& owned, bool accumulate) override;
};

}  // namespace echelon
