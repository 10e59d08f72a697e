// Between whom compressed gradients travel.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "comm/group.h"
#include "sharding/exchange.h"

namespace echelon {

/// The way of one reduction. Between all data parallel ranks: piece p of the flat gradient belongs to rank p, and every
/// rank sends all of its own. Between nodes only: the ranks of a node first add up exactly, rank i of a node the pieces
/// that belong to rank i of any node, and send those.
class Route {
 public:
  /// Errors: Error::recipe where nodes have unequal numbers of ranks.
  Route(const Reduction& reduction, bool between_nodes_only);

  /// The ranks that compressed gradients travel between, and how many; where only one, nothing travels. Piece p of
  /// pieces() goes to rank p.
  int64_t ranks() const { return nodes_; }
  const Group& group() const;
  /// This rank's part of a flat [elements] tensor: [ranks(), n], a view.
  at::Tensor pieces(const at::Tensor& flat) const;
  /// What this rank is to send, shaped like pieces(): of its own gradient, or of the sum over its node. Padding is
  /// zero. Collective.
  at::Tensor gradient() const;
  /// Whether every rank owns everything: what the ranks of group() send is then best sent to all of them.
  bool reaches_all() const;
  /// Stores the sum over all ranks of this rank's own piece [n]; where every rank owns everything, of all pieces.
  /// Collective.
  void store(const at::Tensor& sum) const;
  /// Where every rank owns everything: stores the sums of all of pieces(), shaped like them. Collective.
  void store_all(const at::Tensor& sums) const;

 private:
  const Group& dp() const;
  Call call() const;
  void take(const at::Tensor& all) const;

  const Reduction& reduction_;
  int64_t nodes_, ranks_per_node_;  // where all ranks compress, each is a node
};

/// The same, counted: bytes of all ranks together, of one reduction without its compressed part.
struct RouteBytes {
  RouteBytes(const FlatShard& shard, const Placement& placement, bool between_nodes_only);

  int64_t senders;          ///< ranks of one group()
  int64_t groups;           ///< of them, over the whole mesh
  int64_t piece;            ///< elements
  int64_t inside_nodes;     ///< of the sums inside nodes
  int64_t gather;           ///< of the owners' sums, where every rank owns everything
  int64_t gather_in_nodes;  ///< the same where every node has all sums already
};

}  // namespace echelon
