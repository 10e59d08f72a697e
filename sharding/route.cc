#include "sharding/route.h"

#include <ATen/ATen.h>

#include "cluster/base/error.h"
#include "sharding/flat_shard.h"

namespace echelon {

Route::Route(const Reduction& reduction, bool between_nodes_only)
    : reduction_(reduction), nodes_(dp().size()), ranks_per_node_(1) {
  if (!between_nodes_only) return;
  nodes_ = reduction.shard.zero().mesh.nodes();
  if (nodes_ == 0)
    throw Error::recipe("exchange.between_nodes_only", "the nodes hold unequal numbers of data parallel ranks");
  ranks_per_node_ = dp().size() / nodes_;
}

const Group& Route::dp() const { return reduction_.shard.zero().mesh.dp(); }
const Group& Route::group() const {
  return ranks_per_node_ == 1 ? dp() : reduction_.shard.zero().mesh.dp_between_nodes();
}
Call Route::call() const { return {.name = reduction_.shard.name(), .purpose = Purpose::gradients}; }

at::Tensor Route::pieces(const at::Tensor& flat) const {
  return flat.view({nodes_, ranks_per_node_, -1}).select(1, dp().rank() % ranks_per_node_);
}

at::Tensor Route::gradient() const {
  zero_padding(reduction_.shard, reduction_.gradient);
  if (ranks_per_node_ == 1) return pieces(reduction_.gradient);
  at::Tensor by_index = reduction_.gradient.view({nodes_, ranks_per_node_, -1}).transpose(0, 1).contiguous();
  at::Tensor mine = at::empty({nodes_, by_index.size(2)}, by_index.options());
  reduction_.shard.zero().mesh.dp_in_node().reduce_scatter(by_index, mine, call()).wait();
  return mine;
}

bool Route::reaches_all() const { return reduction_.owned.numel() == reduction_.gradient.numel(); }

void Route::store(const at::Tensor& sum) const {
  if (reduction_.owned.numel() == sum.numel()) return take(sum);
  at::Tensor all = at::empty_like(reduction_.owned);
  dp().all_gather(sum.contiguous(), all, call()).wait();
  take(all);
}

void Route::store_all(const at::Tensor& sums) const {
  if (ranks_per_node_ == 1) return take(sums);
  at::Tensor by_index = at::empty({ranks_per_node_, nodes_, sums.size(1)}, sums.options());
  reduction_.shard.zero().mesh.dp_in_node().all_gather(sums, by_index, call()).wait();
  take(by_index.transpose(0, 1));
}

void Route::take(const at::Tensor& all) const {
  at::Tensor owned = reduction_.owned.view(all.sizes());
  reduction_.accumulate ? owned.add_(all) : owned.copy_(all);
}

RouteBytes::RouteBytes(const FlatShard& shard, const Placement& placement, bool between_nodes_only) {
  int64_t dp = placement.dp, full = shard.extent(placement.dp, placement.tp).elements;
  senders = between_nodes_only ? placement.nodes : dp;
  groups = placement.tp * dp / senders;
  piece = full / dp;
  inside_nodes = placement.tp * (dp - senders) * full * placement.element_bytes * placement.reductions();
  gather_in_nodes = placement.stage == 0 ? placement.tp * (dp - senders) * full * placement.element_bytes : 0;
  gather = placement.stage == 0 ? placement.tp * (dp - 1) * full * placement.element_bytes : 0;
}

}  // namespace echelon
