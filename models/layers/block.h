// One transformer layer.
#pragma once

#include <string>
#include <vector>

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

  const std::string& name() const { return name_; }
  Unit& unit() const { return unit_; }
  Attention& attention() { return attention_; }
  FeedForward& feed_forward() { return feed_forward_; }
  /// `branch` must outlive this.
  void attach_after_attention(const Branch& branch) { attention_branches_.push_back(&branch); }
  void attach_after_feed_forward(const Branch& branch) { feed_forward_branches_.push_back(&branch); }

 private:
  using Branches = std::vector<const Branch*>;

  /// What the residual stream gets of a sublayer: `result` of its `input`, behind dropout and branches.
  at::Tensor added(const at::Tensor& input, const at::Tensor& result, const Branches& branches, const Pass& pass,
                   const char* site) const;
  at::Tensor whole(const at::Tensor& rows, const Pass& pass, const char* site) const;
  /// The norm of rows, for a sublayer; kept for backward unless the pass discards it.
  NormedRows normed(const NormLayer& norm, const at::Tensor& rows, const Pass& pass) const;
  at::Tensor norms_before(const at::Tensor& rows, const Pass& pass) const;
  at::Tensor norms_after(const at::Tensor& rows, const Pass& pass) const;
  /// What attention, and what feed-forward, adds to the residual stream.
  at::Tensor attended(const at::Tensor& in, const Pass& pass) const;
  at::Tensor fed(const at::Tensor& in, const Pass& pass) const;

  const Architecture& architecture_;
  std::string name_;
  Unit& unit_;
  Branches attention_branches_, feed_forward_branches_;
  NormLayer attention_norm_;
  Attention attention_;
  NormLayer feed_forward_norm_;
  FeedForward feed_forward_;
};

}  // namespace echelon
