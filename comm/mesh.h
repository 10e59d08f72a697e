// The job's ranks on named axes.
#pragma once

#include <cstdint>
#include <string>

#include "comm/group.h"

namespace echelon {

/// Sizes of the axes; ranks = dp * tp. dp 0: what remains.
struct MeshShape {
  int dp = 0;   ///< data parallel: ranks that see different samples and share the state
  int tp = 1;   ///< tensor parallel: ranks that share every matrix; neighbours, so that they sit on one node
};

/// The job's ranks on named axes, each axis a Group. rank = dp_rank * tp + tp_rank.
class Mesh {
 public:
  /// Errors: Error::recipe when the axes do not multiply to the ranks of `world`.
  Mesh(const Group& world, MeshShape shape);

  const Group& world() const { return world_; }
  const Group& dp() const { return dp_; }
  const Group& tp() const { return tp_; }
  /// "rank 3/8 dp=1 tp=1"
  std::string place() const;

 private:
  const Group& world_;
  Group dp_, tp_;
};

}  // namespace echelon
