// A flat piece of memory that holds some tensors of a Unit, and this rank's share of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include "sharding/weights.h"
#include "sharding/zero.h"

namespace echelon {

/// The trained, or the frozen, tensors of one Unit, as views of one Storage.
///
/// gather() and release() swap the Storage's memory, so that whatever autograd saved sees the values again in backward:
/// no recompute, no version change. Memory per rank and element, d data parallel ranks (of a replica, where there are
/// several):
///
///     stage   values           gradient                    master and state (in owned shards of n / d)
///     0       all              all                         all
///     1       all              all, reduced in place       1/d
///     2       all              1/d + a bucket in use       1/d
///     3       1/d + gathered   1/d + a bucket in use       1/d
///
/// Frozen tensors are gathered like all others and have no gradient, no master and no state. Where the ranks share
/// memory, gathered means the ranks' shards side by side: a pointer, no copy.
class FlatShard {
 public:
  FlatShard(std::string name, Zero& zero, bool trained);
  FlatShard(const FlatShard&) = delete;
  FlatShard& operator=(const FlatShard&) = delete;

  const std::string& name() const { return name_; }
  Zero& zero() const { return zero_; }
  bool trained() const { return trained_; }
  bool empty() const { return parameters_.empty(); }
  /// In the order of the flat memory.
  const std::vector<Parameter*>& parameters() const { return parameters_; }
  /// Before allocate() only.
  void add(Parameter& parameter);
  void remove(Parameter& parameter);
  /// Collective.
  void allocate();

  // What this rank owns: flat shards [shard]. Masters and gradients are in the dtype of masters; the master of frozen
  // tensors is their value.
  at::Tensor& master() { return master_; }
  at::Tensor& gradient();
  /// The parameters' elements in an owned shard, in order; padding is left out.
  const std::vector<Segment>& segments() const { return segments_; }
  /// Elements in [0, replicated) of an owned shard belong to tensors that are replicated on `tp`.
  int64_t replicated() const;
  /// False where another rank of the replica owns the same elements and counts them (norms, bytes).
  bool counts_on(const Mesh& mesh, bool replicated_on_tp) const;

  /// Makes masters the values of the next forward, on every rank. Collective.
  void publish();
  /// Sums gradients of tensors that are replicated on `tp` over its ranks. Collective.
  void sum_partial_gradients();
  /// Starts a step: the next gradients overwrite.
  void forget_gradients();

  /// The whole flat memory [elements] of an owned shard (master or state) of all ranks of the replica. Collective.
  at::Tensor whole(const at::Tensor& owned);
  /// What this rank can write of a quantity: its share of the flat memory, and what follows it as far as a row that
  /// starts in the share can reach.
  struct Reach {
    at::Tensor share, following;  ///< flat
  };
  /// Of an owned shard (master or state). Collective.
  Reach reach(const at::Tensor& owned);
  /// Rows of tensors that this rank writes to a checkpoint: whole rows, each by one rank of a replica only.
  struct Rows {
    const Parameter* parameter;
    Slice slice;            ///< in the global tensor
    int64_t begin, length;  ///< in this rank's share, and on in what follows it

    at::Tensor values(const Reach& reach) const;  ///< [slice.sizes]
  };
  std::vector<Rows> rows_to_save() const;
  /// Fills an owned shard from `prefix` + name of each tensor.
  void read_owned(at::Tensor& owned, TensorReader& reader, const std::string& prefix) const;

  /// Elements of the local flat memory, padded so that it divides by the ranks.
  int64_t elements() const { return elements_; }
  /// What elements() and the replicated part of it are on `dp` (of a replica) by `tp` ranks; nothing need be allocated.
  struct Extent {
    int64_t elements, replicated;
  };
  Extent extent(int dp, int tp) const;

  /// Nobody reads its values any more: it is left out of gathers.
  void leave_out() { left_out_ = true; }

  // What a Unit does with its shards.
  /// Starts what gather() waits for, where values have to travel; void after publish().
  void fetch();
  void gather();
  void release();
  /// Gradient memory for one backward of the Unit, and its reduction to the owners, for which gradient() waits.
  /// Collective.
  void begin_gradients();
  void end_gradients();

 private:
  friend class Parameter;

  void place_parameters();
  void allocate_values();
  void allocate_gradients();
  std::vector<Segment> segments_of(int64_t begin, int64_t length) const;
  void set_memory(void* memory);
  at::Tensor part(const at::Tensor& flat) const;
  at::Tensor owned_values() const;
  at::TensorOptions options_of(at::ScalarType dtype) const;
  const Group& replica() const { return zero_.mesh.dp_in_replica(); }

  std::string name_;
  Zero& zero_;
  bool trained_, left_out_ = false;
  std::vector<Parameter*> parameters_;
  std::vector<Segment> segments_;
  int64_t elements_ = 0, shard_ = 0, replicated_ = 0;

  c10::Storage storage_;      // of every Parameter's value
  at::Tensor values_;         // stages 0 to 2: all values; stage 3: this rank's shard
  at::Tensor shared_values_;  // stage 3 on one node: everybody's shards side by side
  at::Tensor gathered_;       // stage 3 between nodes, while gathered or under way
  Work arriving_;             // of gathered_

  at::Tensor gradient_;  // this rank's sums, all elements; stages 2 and 3: a bucket, during backward
  Buckets::Bucket* bucket_ = nullptr;
  at::Tensor owned_gradient_, master_;
};

}  // namespace echelon
