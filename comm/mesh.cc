#include "comm/mesh.h"

#include "cluster/base/error.h"

namespace echelon {

namespace {

/// `world` when the axes multiply to its ranks: judged before the first collective, alike on every rank.
const Group& checked(const Group& world, const MeshShape& shape) {
  int64_t ranks = world.size();
  bool fits = shape.tp > 0 && ranks % shape.tp == 0 && (shape.dp == 0 || int64_t{shape.dp} * shape.tp == ranks);
  if (fits && (shape.replicas < 1 || ranks / shape.tp % shape.replicas != 0)) {
    throw Error::recipe("mesh.replicas", "does not divide the data parallel ranks")
        .got(fmt::format("replicas {} of dp {}", shape.replicas, ranks / shape.tp));
  }
  if (fits) return world;
  Error error = Error::recipe("mesh", "the axes do not multiply to the ranks of the job");
  throw error.got(fmt::format("dp {} and tp {} for {} ranks", shape.dp, shape.tp, ranks))
      .expected("dp * tp equal to the ranks, or dp 0 for what remains");
}

}  // namespace

Mesh::Mesh(const Group& world, MeshShape shape)
    : world_(checked(world, shape)),
      dp_(world.split(world.rank() % shape.tp, world.rank() / shape.tp, "dp")),
      tp_(world.split(world.rank() / shape.tp, world.rank() % shape.tp, "tp")),
      nodes_(shape.nodes > 0 && dp_.size() % shape.nodes == 0 ? shape.nodes : 0) {
  if (shape.replicas > 1) {
    int ranks_per_replica = dp_.size() / shape.replicas;
    dp_in_replica_ = dp_.split(dp_.rank() / ranks_per_replica, dp_.rank(), "dp in replica");
    dp_between_replicas_ = dp_.split(dp_.rank() % ranks_per_replica, dp_.rank(), "dp between replicas");
  }
  if (nodes_ < 2) return;
  int ranks_per_node = dp_.size() / nodes_;
  dp_in_node_ = dp_.split(dp_.rank() / ranks_per_node, dp_.rank(), "dp in node");
  dp_between_nodes_ = dp_.split(dp_.rank() % ranks_per_node, dp_.rank(), "dp between nodes");
}

std::string Mesh::place() const {
  std::string replica = replicas() > 1 ? fmt::format(" replica={}", this->replica()) : "";
  return fmt::format("rank {}/{} dp={} tp={}", world_.rank(), world_.size(), dp_.rank(), tp_.rank()) + replica;
}

}  // namespace echelon
