// The smallest piece of a model that is gathered, run and recomputed together.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

#include "sharding/weights.h"
#include "sharding/zero.h"

namespace echelon {

/// A flat piece of memory that holds the tensors of (usually) one transformer block, and this rank's share of it.
///
/// The tensors are views of one Storage. gather() and release() swap the Storage's memory, so that whatever autograd saved
/// sees the values again in backward: no recompute, no version change. Memory per rank and element, d ranks:
///
///     stage   values           gradient                    master and state (in owned shards of n / d)
///     0       all              all                         all
///     1       all              all, reduced in place       1/d
///     2       all              1/d + a bucket in use       1/d
///     3       1/d + gathered   1/d + a bucket in use       1/d
///
/// Where the ranks share memory, a gathered Unit is the ranks' shards side by side: a pointer, no copy.
class Unit {
 public:
  Unit(std::string name, Zero& zero);
  ~Unit();
  Unit(const Unit&) = delete;
  Unit& operator=(const Unit&) = delete;

  const std::string& name() const { return name_; }
  Zero& zero() const { return zero_; }

  /// Declares a tensor. All ranks declare the same tensors in the same order, then allocate(). Collective.
  Parameter& add(std::string name, Layout layout, Init init);
  void allocate();
  const std::vector<std::unique_ptr<Parameter>>& parameters() const { return parameters_; }

  /// Between these two the values are readable. With gradients on, their backward runs in reverse: leave() gathers again
  /// and takes gradient memory, enter() reduces the gradient to its owner and releases. `input` may be undefined where the
  /// Unit has no differentiable input (an embedding of ids): then the result is a scalar on which the Unit's first
  /// operator must be made to depend, see Embedding.
  at::Tensor enter(const at::Tensor& input);
  at::Tensor leave(const at::Tensor& output);
  /// enter, body, leave; with gradients on, nothing between is kept and `body` runs again in backward.
  /// Source: Chen et al. 2016 (training deep nets with sublinear memory cost).
  at::Tensor recompute(const std::function<at::Tensor(const at::Tensor&)>& body, const at::Tensor& input);

  // What this rank owns, in the dtype of masters: flat shards [shard].
  at::Tensor& master() { return master_; }
  at::Tensor& gradient() { return owned_gradient_; }
  /// The parameters' elements in an owned shard, in order; padding is left out.
  const std::vector<Segment>& segments() const { return segments_; }
  /// Elements in [0, replicated) of an owned shard belong to tensors that are replicated on `tp`.
  int64_t replicated() const;
  /// False where another rank of the group owns the same elements and counts them (norms, bytes).
  bool counts_on(const Mesh& mesh, bool replicated_on_tp) const;

  /// Makes masters the values of the next forward, on every rank. Collective.
  void publish();
  /// Sums gradients of tensors that are replicated on `tp` over its ranks. Collective.
  void sum_partial_gradients();
  /// Starts a step: the next gradients overwrite.
  void forget_gradients();

  /// The whole flat memory [elements] of an owned shard (master or state) of all ranks. Collective.
  at::Tensor whole(const at::Tensor& owned);
  /// Rows of tensors that this rank writes to a checkpoint: whole rows, each by one rank only.
  struct Rows {
    const Parameter* parameter;
    Slice slice;                 ///< in the global tensor
    int64_t begin, length;       ///< in the whole flat memory

    at::Tensor values(const at::Tensor& whole) const;   ///< [slice.sizes]
  };
  std::vector<Rows> rows_to_save() const;
  /// Fills an owned shard from `prefix` + name of each tensor.
  void read_owned(at::Tensor& owned, TensorReader& reader, const std::string& prefix) const;

  /// Elements of the local flat memory, padded so that it divides by the ranks.
  int64_t elements() const { return elements_; }
  /// What elements() and the replicated part of it are on `dp` by `tp` ranks; nothing need be allocated.
  struct Extent {
    int64_t elements, replicated;
  };
  Extent extent(int dp, int tp) const;

  void gather();
  void release();
  void before_backward();
  void after_backward();

 private:
  friend class Parameter;

  void place_parameters();
  void allocate_values();
  void allocate_gradients();
  std::vector<Segment> segments_of(int64_t begin, int64_t length) const;
  void set_memory(void* memory);
  at::Tensor part(const at::Tensor& flat) const;
  at::TensorOptions options_of(at::ScalarType dtype) const;
  const Group& dp() const { return zero_.mesh.dp(); }

  std::string name_;
  Zero& zero_;
  std::vector<std::unique_ptr<Parameter>> parameters_;
  std::vector<Segment> segments_;
  int64_t elements_ = 0, shard_ = 0, replicated_ = 0;

  c10::Storage storage_;            // of every Parameter's value
  at::Tensor values_;               // stages 0 to 2: all values; stage 3: this rank's shard
  at::Tensor shared_values_;        // stage 3 on one node: everybody's shards side by side
  at::Tensor gathered_;             // stage 3 between nodes, while gathered
  int gathered_times_ = 0;

  at::Tensor gradient_;             // this rank's sums, all elements; stages 2 and 3: a bucket, during backward
  Buckets::Bucket* bucket_ = nullptr;
  at::Tensor owned_gradient_, master_;
  at::Tensor anchor_;               // requires gradients, so that enter() always has a backward
};

}  // namespace echelon
