// Collectives of ranks that share memory, be they threads or processes of one node.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/backends/backend.h"
#include "comm/backends/control.h"
#include "comm/backends/mailbox.h"
#include "comm/backends/node_memory.h"

namespace echelon {

/// Tensors in windows of the group are read where they lie; others go, chunk by chunk, through a staging area. Which
/// way is taken never depends on one rank alone: the ranks tell each other where their tensors lie when they meet.
class SharedMemory final : public Backend {
 public:
  /// `page`: memory of page_bytes(size), zeroed, that all ranks of the group have mapped.
  SharedMemory(std::shared_ptr<Membership> membership, std::shared_ptr<MemorySource> source, NodeMemory page, int rank,
               int size);
  static int64_t page_bytes(int size);
  /// The failure that all ranks of this group can see.
  std::shared_ptr<Failure> failure() const;

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

 private:
  struct Tensor;   // a tensor's memory and where it lies
  struct Meeting;  // what all ranks said about a collective
  struct Slices;   // one slice for every rank, on its way through the staging area

  Tensor locate(const at::Tensor& tensor) const;
  /// Writes this rank's note, with `stage` also its first chunk, and meets the others.
  template <class Fill>
  Meeting meet(const Collective& collective, const Tensor& source, const Tensor& target, bool stage, const Fill& fill);
  /// Chunk after chunk: every rank fills its part of the staging area, all meet, every rank drains.
  template <class Fill, class Drain>
  void through_staging(bool first_filled, int64_t chunks, const Fill& fill, const Drain& drain);
  std::byte* staging(int rank) const;
  void all_reduce_where_they_lie(const Collective& collective, const Meeting& meeting, int64_t bytes);
  void gather_in_place(const Tensor& shard, const Tensor& full, const Meeting& meeting);
  /// Memory that the first of `members` makes and the others open. Every rank of the group calls this after meeting,
  /// each with the members it belongs to.
  NodeMemory share(const std::vector<int>& members, int64_t bytes);

  std::shared_ptr<MemorySource> source_;
  NodeMemory page_;
  Control control_;
  std::shared_ptr<WindowTable> windows_ = std::make_shared<WindowTable>();
  Mailboxes mailboxes_;
  uint64_t windows_made_ = 0;
  uint64_t rounds_ = 0;  // of the staging area, whose two halves are used in turn
};

}  // namespace echelon
