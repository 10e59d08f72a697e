// Ranks of several nodes, over MPI.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "comm/backends/backend.h"
#include "comm/backends/mpi_calls.h"

namespace echelon {

/// Data travels by MPI as bytes; sums are our own, in rank order, so that they have the bits of a sum in shared memory.
/// All calls are non-blocking and watched, since a blocking MPI call cannot time out. Large collectives go on in the
/// background, in the order of the calls.
class MpiNetwork : public Backend {
 public:
  /// `ranks_per_node` as in SessionOptions. `met`: the ranks have always met before in a larger group.
  MpiNetwork(std::shared_ptr<Membership> membership, Communicator communicator, int ranks_per_node, bool met = false);

  std::shared_ptr<Backend> split(const Collective& collective, int color, int key) override;
  Window allocate(const Collective& collective, int64_t elements) override;
  Work all_reduce(const Collective& collective, at::Tensor& tensor) override;
  Work all_gather(const Collective& collective, const at::Tensor& shard, at::Tensor& full) override;
  Work reduce_scatter(const Collective& collective, const at::Tensor& full, at::Tensor& shard) override;
  Work all_to_all(const Collective& collective, const at::Tensor& input, at::Tensor& output) override;
  Work broadcast(const Collective& collective, at::Tensor& tensor) override;
  Work send(const Collective& collective, const at::Tensor& tensor) override;
  Work recv(const Collective& collective, at::Tensor& tensor) override;
  Work barrier(const Collective& collective) override;

 protected:
  static constexpr int64_t kChunkBytes = 16 << 20;  ///< bounds the copies on the way, and stays far below MPI's int
  static constexpr int64_t kSmallBytes = 4 << 10;   ///< below, one more exchange costs more than sending all to all

  /// Does the work of a collective of `larger` behind that of the collectives before it, perhaps while the rank goes on.
  template <class Move>
  Work in_turn(const at::Tensor& larger, Move move) {
    return membership_->run(static_cast<int64_t>(larger.nbytes()),
                            [self = shared_from_this(), move = std::move(move)]() mutable { move(); });
  }
  /// In checked mode compares all signatures: rank 0 collects them, which shows who is missing, and hands them out.
  void meet(const Collective& collective);

 private:
  std::vector<Signature> collect(const Signature& mine);
  void sum_everywhere(const Collective& collective, const at::Tensor& tensor);
  void gather_everywhere(const Collective& collective, const at::Tensor& shard, const at::Tensor& full);
  void finish(Request& request, const Collective& collective);
  /// Slice r of `send` goes to rank r; slices are of `bytes`.
  void exchange(const Collective& collective, const std::byte* send, std::byte* recv, int64_t bytes);
  template <class Take>
  void exchange_slices(const Collective& collective, const std::byte* full, int64_t slice, const Take& take);
  void gather(const Collective& collective, const std::byte* send, std::byte* recv, int64_t bytes);
  /// Adds up the slices that all ranks have sent here.
  void sum_slices(const Collective& collective, const std::byte* slices, std::byte* out, int64_t bytes,
                  bool accumulate);

  Communicator communicator_;
  int ranks_per_node_;
  bool met_;
  std::vector<int64_t> sent_, received_;  // messages so far, by other rank
};

/// The ranks of `communicator`: over shared memory where they sit on one node, else over MPI. Collective.
std::shared_ptr<Backend> make_mpi_group(std::shared_ptr<Membership> membership, Communicator communicator,
                                        int ranks_per_node);

}  // namespace echelon
