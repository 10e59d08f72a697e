// The job's ranks on named axes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "comm/group.h"

namespace echelon {

/// Sizes of the axes; ranks = dp * tp. dp 0: what remains.
struct MeshShape {
  int dp = 0;   ///< data parallel: ranks that see different samples and share the state
  int tp = 1;   ///< tensor parallel: ranks that share every matrix; neighbours, so that they sit on one node
  int nodes = 1;   ///< machines, each with as many neighbouring ranks; 0: unequal; 1 also where nobody needs to know
};

/// The job's ranks on named axes, each axis a Group. rank = dp_rank * tp + tp_rank.
class Mesh {
 public:
  /// Errors: Error::recipe when the axes do not multiply to the ranks of `world`.
  Mesh(const Group& world, MeshShape shape);

  const Group& world() const { return world_; }
  const Group& dp() const { return dp_; }
  const Group& tp() const { return tp_; }
  /// Machines that dp() is spread over, each with as many neighbouring ranks of it; 0 where it is not. Of dp(), the ranks
  /// on this machine; and, of two machines or more, those with this rank's index on each.
  int nodes() const { return nodes_; }
  const Group& dp_in_node() const { return dp_in_node_ ? *dp_in_node_ : dp_; }
  const Group& dp_between_nodes() const { return dp_between_nodes_.value(); }
  /// "rank 3/8 dp=1 tp=1"
  std::string place() const;

 private:
  const Group& world_;
  Group dp_, tp_;
  int nodes_;
  std::optional<Group> dp_in_node_, dp_between_nodes_;   // where there are two nodes or more
};

}  // namespace echelon
