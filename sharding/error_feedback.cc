#include "sharding/error_feedback.h"

#include <ATen/ATen.h>

#include "cluster/base/error.h"
#include "sharding/flat_shard.h"

namespace echelon {

ErrorFeedback::ErrorFeedback(bool between_nodes_only, int64_t exact_steps)
    : between_nodes_only_(between_nodes_only), exact_steps_(exact_steps) {
  if (exact_steps < 0) throw Error::recipe("exchange.exact_steps", "is below 0").got(exact_steps);
}

at::Tensor ErrorFeedback::residual(FlatShard& shard) {
  at::Tensor& residual = residuals_[&shard];
  if (!residual.defined()) residual = at::zeros({shard.elements()}, shard.gradient().options());
  return residual;
}

Work ErrorFeedback::reduce(const Reduction& reduction) {
  if (exact_now_) return exact_->reduce(reduction);
  Reduction whole_step = reduction;
  whole_step.accumulate = false;
  Route route(whole_step, between_nodes_only_);
  at::Tensor rest = residual(reduction.shard), pieces = route.pieces(rest);
  pieces.add_(route.gradient());
  if (!reduction.last) return {};
  if (route.ranks() == 1) {
    route.store(pieces[0]);
    rest.zero_();
    return {};
  }
  send(whole_step, route, rest);
  zero_padding(reduction.shard,
               rest);  // codes have no zero: what they left in the padding would weigh on its neighbours
  return {};
}

int64_t ErrorFeedback::bytes_sent(const FlatShard& shard, const Placement& placement) const {
  return exact_now_ ? exact_->bytes_sent(shard, placement) : approximate_bytes_sent(shard, placement);
}

int64_t ErrorFeedback::bytes_kept(const FlatShard& shard, const Placement& placement) const {
  return shard.extent(placement.ranks_per_replica(), placement.tp).elements * placement.element_bytes;
}

}  // namespace echelon
