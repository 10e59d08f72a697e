// Ranks of several nodes with as many neighbours on each: what can be done inside a node does not travel between them.
#pragma once

#include <memory>

#include "comm/backends/mpi_network.h"
#include "comm/backends/shared_memory.h"

namespace echelon {

/// Rank r is number r % n of the n on its node. Sums and gathers move 1/n of what they would between ranks one by one:
/// the ranks of a node add up in the memory that they share, each sends the part that is its own to its like on the
/// other nodes, and all hand round what came. A sum's order is that of the nodes of sums in rank order; types below 32
/// bits are widened on the way and rounded once.
class MpiNodes final : public MpiNetwork {
 public:
  /// `node`: the ranks of this one's node; `across`: those with its number on every node.
  MpiNodes(std::shared_ptr<Membership> membership, Communicator communicator, int ranks_per_node,
           std::shared_ptr<SharedMemory> node, std::shared_ptr<MpiNetwork> across);

  Work all_reduce(const Collective& collective, at::Tensor& tensor) override;
  Work all_gather(const Collective& collective, const at::Tensor& shard, at::Tensor& full) override;
  Work reduce_scatter(const Collective& collective, const at::Tensor& full, at::Tensor& shard) override;

 private:
  void sum_all(const Collective& collective, const at::Tensor& flat);
  void gather_all(const Collective& collective, const at::Tensor& shard, const at::Tensor& full);
  void sum_parts(const Collective& collective, const at::Tensor& full, const at::Tensor& shard);
  /// Sums a flat tensor whose elements the ranks of a node divide, in place.
  void sum_in_place(const Collective& collective, at::Tensor all);

  std::shared_ptr<SharedMemory> node_;
  std::shared_ptr<MpiNetwork> across_;
};

}  // namespace echelon
