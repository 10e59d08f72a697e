// The job's ranks on named axes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "comm/group.h"

namespace echelon {

/// Sizes of the axes; ranks = dp * tp. dp 0: what remains.
struct MeshShape {
  int dp = 0;  ///< data parallel: ranks that see different samples and share the state
  int tp = 1;  ///< tensor parallel: ranks that share every matrix; neighbours, so that they sit on one node
  int replicas =
      1;  ///< inside dp: neighbouring ranks that share one copy of the state; each sees its share of the samples
  int nodes = 1;  ///< machines, each with as many neighbouring ranks; 0: unequal; 1 also where nobody needs to know
};

/// The job's ranks on named axes, each axis a Group. rank = dp_rank * tp + tp_rank, dp_rank = replica * (dp / replicas)
/// + rank in the replica.
class Mesh {
 public:
  /// Errors: Error::recipe when the axes do not multiply to the ranks of `world`, or `replicas` does not divide dp.
  Mesh(const Group& world, MeshShape shape);

  const Group& world() const { return world_; }
  const Group& dp() const { return dp_; }
  const Group& tp() const { return tp_; }
  /// Copies of the sharded state, and the one that this rank belongs to (from 0).
  int replicas() const { return dp_between_replicas_ ? dp_between_replicas_->size() : 1; }
  int replica() const { return dp_between_replicas_ ? dp_between_replicas_->rank() : 0; }
  /// Of dp(), the ranks that share one copy of the sharded state with this one; and, of two replicas or more, those
  /// with this rank's index in each.
  const Group& dp_in_replica() const { return dp_in_replica_ ? *dp_in_replica_ : dp_; }
  const Group& dp_between_replicas() const { return dp_between_replicas_.value(); }
  /// Machines that dp() is spread over, each with as many neighbouring ranks of it; 0 where it is not. Of dp(), the
  /// ranks on this machine; and, of two machines or more, those with this rank's index on each.
  int nodes() const { return nodes_; }
  const Group& dp_in_node() const { return dp_in_node_ ? *dp_in_node_ : dp_; }
  const Group& dp_between_nodes() const { return dp_between_nodes_.value(); }
  /// "rank 3/8 dp=1 tp=1"
  std::string place() const;

 private:
  const Group& world_;
  Group dp_, tp_;
  int nodes_;
  std::optional<Group> dp_in_node_, dp_between_nodes_;        // where there are two nodes or more
  std::optional<Group> dp_in_replica_, dp_between_replicas_;  // where there are two replicas or more
};

}  // namespace echelon
