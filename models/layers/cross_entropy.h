// The head over the vocabulary and its cross-entropy, which may be split over ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include "comm/group.h"
#include "sharding/unit.h"

namespace echelon {

/// Sum over rows of -log softmax(x Wᵀ + b)[target]. x [N, D]; weight [V, D] and bias [V], or this rank's rows of them,
/// beginning at `first`; targets [N] in the whole vocabulary. A scalar in float32, or float64 for float64. The rows are
/// taken a chunk at a time, forward and backward together: the logits of a chunk become their own gradient, and all of
/// them never exist at once. Sources: Shoeybi et al. 2019 (vocabulary parallel form), Hsu et al. 2024 (Liger: chunks).
at::Tensor head_cross_entropy_sum(const at::Tensor& x, const Parameter& weight, const Parameter* bias,
                                  const at::Tensor& targets, int64_t first, const Group& tp);

/// The same of logits [N, V] or this rank's columns of them, which are kept for backward.
at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& targets, int64_t first, const Group& tp);

}  // namespace echelon
