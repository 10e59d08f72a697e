// One transformer layer.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

#include "models/layers/attention.h"
#include "models/layers/feed_forward.h"
#include "models/layers/norm.h"

namespace echelon {

/// Attention and feed-forward, each with a residual sum and a norm before it (pre-norm) or after the sum (post-norm).
class Block {
 public:
  Block(Unit& unit, const std::string& name, const Architecture& architecture, int64_t layer);
  /// rows: this rank's rows [ceil(B * T / tp), D]; so is the result.
  at::Tensor operator()(const at::Tensor& rows, const Pass& pass) const;

 private:
  at::Tensor whole(const at::Tensor& rows, const Pass& pass, const char* site) const;

  const Architecture& architecture_;
  std::string name_;
  NormLayer attention_norm_;
  Attention attention_;
  NormLayer feed_forward_norm_;
  FeedForward feed_forward_;
};

}  // namespace echelon
