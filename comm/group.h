// Ranks that exchange tensors.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

#include "comm/work.h"

namespace echelon {

class Backend;
class Ledger;

enum class Reduce { sum, max, min };

/// What a transfer is for; `bytes_sent` in metrics.jsonl is counted by it.
enum class Purpose { gradients, parameters, activations, updates, control };

/// How one collective is made and named.
struct Call {
  std::string name;  ///< of the tensor or decision; stands in the ledger and in errors
  Purpose purpose = Purpose::control;
  Reduce reduce = Reduce::sum;
  bool accumulate = false;  ///< reduce_scatter: add to what `shard` holds instead of overwriting it
};

/// Memory of which every rank of a group holds one slice of `n` elements.
struct Window {
  at::Tensor mine;  ///< [n], this rank's slice; zeroed
  at::Tensor all;  ///< [size * n], every rank's slice side by side in rank order; undefined where ranks share no memory
};

/// Ranks that exchange tensors. Every collective is entered by all ranks of the group, in the same order.
///
/// Tensors are contiguous, of dtype float64, float32, bfloat16 or int64 (all_gather, broadcast, all_to_all, send, recv:
/// also uint8 and int32), and of the same shape and dtype on every rank. Sums run in rank order, bfloat16 is summed in
/// float32 and rounded once: the result has the same bits on every rank, in every run and on every backend but nccl,
/// which sums in an order of its own. A group of one returns at once.
///
/// Bytes sent are logical and exact: of what all ranks send together, each counts an equal share, rounded so that the
/// shares add up (a rank's share of an all_reduce is that of 2 (size - 1) * tensor).
///
/// Errors: Error::shape if shape, dtype or contiguity is wrong; Error::comm if the ranks disagree about the collective
/// (both sides are named), if a rank has failed, or after the session's timeout.
class Group {
 public:
  Group(std::shared_ptr<Backend> backend, std::string name);
  ~Group();
  Group(Group&&) noexcept;
  Group& operator=(Group&&) noexcept;

  int rank() const;
  int size() const;
  const std::string& name() const { return name_; }
  /// Where tensors of its collectives live.
  at::Device device() const;

  /// Ranks of equal `color` form a new group, ordered by (key, rank). Collective.
  Group split(int color, int key, std::string name) const;

  /// A window of `elements` per rank, 64-byte aligned when elements * itemsize is a multiple of 64. Collective.
  /// A collective on tensors that lie in a window reads the other ranks' memory directly, without copies; when `full`
  /// is `Window::all` and `shard` its own slice, all_gather is only a fence: what the others write into their slices
  /// afterwards shows at once, so whoever writes again needs a barrier first. Other memory works, slower. Windows serve
  /// the group that made them; its sub-groups see them as other memory.
  /// Errors: Error::memory when the node has not so much left.
  Window allocate(int64_t elements, at::ScalarType dtype) const;

  /// Reduces `tensor` in place. Bytes sent by a rank: 2 (size - 1) / size * tensor.
  Work all_reduce(at::Tensor& tensor, const Call& call) const;
  /// Shapes: shard [n], full [size * n]; any shapes with those counts of elements. `shard` may be a slice of `full`.
  /// Bytes sent by a rank: (size - 1) / size * full.
  Work all_gather(const at::Tensor& shard, at::Tensor& full, const Call& call) const;
  /// Shapes: full [size * n], shard [n]. Bytes sent by a rank: (size - 1) / size * full. `full` keeps its content.
  Work reduce_scatter(const at::Tensor& full, at::Tensor& shard, const Call& call) const;
  /// Shapes: both [size * n]; slice r of `input` goes to rank r.
  /// Bytes sent by a rank: as all_gather, of `input`. The two must not overlap.
  Work all_to_all(const at::Tensor& input, at::Tensor& output, const Call& call) const;
  /// Bytes sent: (size - 1) * tensor by `root`, none by the others.
  Work broadcast(at::Tensor& tensor, int root, const Call& call) const;
  /// To rank `to`, which must recv under the same name. Messages of a pair of ranks arrive in the order of the calls.
  /// The Work is done when the other side has the tensor whole; to exchange, start the send, recv, then wait for the
  /// send. Bytes sent: tensor, by the sender.
  Work send(const at::Tensor& tensor, int to, const Call& call) const;
  Work recv(at::Tensor& tensor, int from, const Call& call) const;
  /// Returns when every rank has entered, and makes their earlier writes to windows visible.
  void barrier(const Call& call) const;

  /// Counts `bytes` of a transfer that a shared window made unnecessary, so that `bytes_sent` stays logical.
  void account(const Call& call, int64_t bytes) const;

  /// Logical bytes sent by this rank so far for `purpose`, all groups of the session together.
  int64_t bytes_sent(Purpose purpose) const;
  /// Seconds this rank has spent inside collectives so far (exposed communication).
  double seconds() const;

 private:
  std::shared_ptr<Backend> backend_;
  std::string name_;
};

}  // namespace echelon
