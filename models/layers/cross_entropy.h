// Cross-entropy over a vocabulary that may be split over ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include "comm/group.h"

namespace echelon {

/// Sum over rows of -log softmax(logits)[target]. logits [N, V or this rank's part of V, starting at `first`] (overwritten:
/// they become their own gradient); targets [N] in the whole vocabulary. A scalar in float32, or float64 for float64.
/// Source: Shoeybi et al. 2019 (vocabulary parallel form).
at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& targets, int64_t first, const Group& tp);

}  // namespace echelon
