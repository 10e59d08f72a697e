// How gradients travel from the ranks that computed them to the ranks that own them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

#include "comm/group.h"
#include "comm/work.h"
#include "sharding/seed.h"

namespace echelon {

class Codec;
class FlatShard;
class Registry;
class Weights;

/// One gradient on its way to its owners.
struct Reduction {
  FlatShard& shard;
  at::Tensor gradient;  ///< [elements], this rank's sum over its samples; its padding is undefined
  at::Tensor owned;     ///< this rank's part of the sum over ranks: [elements / ranks], or [elements] where every rank
                     ///< owns everything; may lie inside `gradient`
  bool accumulate = false;  ///< add to what `owned` holds
  bool last = true;         ///< no further reduction of this shard follows in this step
  Purpose purpose = Purpose::gradients;
};

/// How a shard will lie on ranks, for counting before anything is allocated.
struct Placement {
  int dp = 1, tp = 1, stage = 3;
  int replicas = 1;           ///< inside dp
  int nodes = 1;              ///< that the data parallel ranks are spread over, equally
  int64_t element_bytes = 4;  ///< of a gradient
  int64_t micro_steps = 1;

  /// Reductions of a step that an Exchange without memory of its own makes.
  int64_t reductions() const { return stage >= 2 ? micro_steps : 1; }
  /// Data parallel ranks that share one copy of the sharded state.
  int ranks_per_replica() const { return dp / replicas; }
};

/// Sums the gradient of a FlatShard over the data parallel ranks; each gets what it owns. A Part: recipes name it in
/// `exchange`. The result has the same bits on every rank that owns an element, and in every run on the same ranks.
class Exchange {
 public:
  struct Context {
    Seed seed;                           ///< of the run
    int replicas = 1;                    ///< of the mesh
    int64_t steps = 0;                   ///< of the run
    const Registry* registry = nullptr;  ///< for an exchange that is made of another
  };
  virtual ~Exchange() = default;

  /// How it writes values that are no gradients, for an exchange that sends something else; null: as they are. Errors:
  /// Error::recipe where it cannot.
  virtual std::shared_ptr<const Codec> codec() const;

  /// Whether it can sum_updates(); asked before codec().
  virtual bool sums_updates() const { return false; }
  /// Sums over all data parallel ranks what is no gradient and is kept in pieces, each by one rank of a replica:
  /// `gradient` is zero but for this rank's piece; `owned` is what this rank owns in its replica. Bytes are those of
  /// bytes_sent(). Collective.
  virtual void sum_updates(const Reduction& reduction);

  /// Collective over the data parallel ranks. An Exchange that keeps what it did not send may collect the gradients of
  /// a step and send them with the last one; `owned` is then undefined until that has been reduced.
  virtual Work reduce(const Reduction& reduction) = 0;

  /// Whether the started step's gradients leave nothing behind in what is kept for later steps. Else a step whose
  /// gradient is not finite cannot be left out: what was kept has taken it in.
  virtual bool forgets_gradients() const { return true; }

  /// Tells the number of the step (1 = first) whose gradients come next.
  virtual void start(int64_t step) {}

  /// Whether it can sum over the replicas of a mesh that has several.
  virtual bool joins_replicas() const { return false; }
  /// Whether the started step sums gradients over all replicas. If not, each replica trains on its share of the batch
  /// alone: targets, gradient norm and clipping are its own, and so are its masters and optimizer state from then on.
  virtual bool synchronous() const { return true; }
  /// Masters have been updated, and not yet been published: where replicas that train apart meet. Collective.
  virtual void updated(Weights& weights) {}
  /// What the ranks of every replica own alike, by name ("shared"): shaped like the master. Checkpoints hold them.
  virtual std::map<std::string, at::Tensor> owned_state(FlatShard& shard) { return {}; }

  /// What this rank alone knows, by name ("residual"): flat [elements] tensors in the dtype of gradients, padding zero.
  /// Their sums over ranks must not get lost, so checkpoints hold them.
  virtual std::map<std::string, at::Tensor> summands(FlatShard& shard) { return {}; }
  /// Whether summands of a tensor that is replicated on `tp` are the same on all its ranks; else they are parts of one
  /// sum.
  virtual bool summands_are_copied_on_tp() const { return false; }
  /// Whole tensors, the same on all data parallel ranks, that spare the next reduction work; they may get lost. By
  /// tensor.
  virtual std::map<std::string, at::Tensor> warm_start(FlatShard& shard) { return {}; }

  /// Bytes that a step as the started one sends for `shard`, of all ranks together.
  virtual int64_t bytes_sent(const FlatShard& shard, const Placement& placement) const = 0;
  /// The same of updated().
  virtual int64_t update_bytes_sent(const FlatShard& shard, const Placement& placement) const { return 0; }
  /// Bytes that a rank (the largest over `tp`) keeps for `shard` between steps.
  virtual int64_t bytes_kept(const FlatShard& shard, const Placement& placement) const { return 0; }
};

/// Sums in the dtype of gradients: what a recipe without `exchange` means.
std::unique_ptr<Exchange> exact_exchange();
/// The same inside this rank's replica alone.
std::unique_ptr<Exchange> replica_exchange();
/// Sums signs with error feedback, for those that send something else than gradients. Errors: Error::recipe as of Sign.
std::unique_ptr<Exchange> sign_exchange(int64_t block, bool between_nodes_only);

/// Zeroes the elements of a flat [elements] tensor that belong to no parameter.
void zero_padding(const FlatShard& shard, const at::Tensor& flat);

}  // namespace echelon
