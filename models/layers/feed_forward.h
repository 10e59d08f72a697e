// The feed-forward network of a block.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/architecture.h"
#include "models/layers/linear.h"

namespace echelon {

/// down(activation(up(x))), or down(activation(gate(x)) * up(x)) when gated (Shazeer 2020). Split over `tp` by
/// features.
class FeedForward {
 public:
  FeedForward(Unit& unit, const std::string& name, const Architecture& architecture);
  /// rows [B * T, D] whole on every rank; the result is this rank's rows.
  at::Tensor operator()(const at::Tensor& rows, const Pass& pass) const;

  std::vector<Linear*> linears();

 private:
  /// [B * T, features of this rank]; kept for backward unless the pass discards it.
  at::Tensor activated(const at::Tensor& rows, const Pass& pass) const;

  Activation activation_;
  std::optional<Linear> gate_;
  Linear up_, down_;
};

}  // namespace echelon
