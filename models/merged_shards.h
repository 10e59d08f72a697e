// Adapters folded into the shards of a live model, and taken out again bit by bit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/merge_rule.h"
#include "sharding/weights.h"

namespace echelon {

/// Merges into what each rank owns, in place: a rank computes its own elements only, in the arithmetic of `echelon
/// merge`, so that the bytes are those of a merged folder on any number of ranks, at any ZeRO stage and under `tp`. May
/// be done again and again while a model trains: merge, give the adapter a new start, go on. Memory beside the shards:
/// a few blocks of rows; of DoRA under `tp`, whose rows are cut, blocks of whole rows.
///
/// What rounding took away is kept, compressed, so that the merges can be undone, the last one first.
class MergedShards {
 public:
  /// `weights` must outlive this. Without `undoable` nothing is kept.
  explicit MergedShards(Weights& weights, bool undoable = true) : weights_(weights), undoable_(undoable) {}

  /// Folds `rules`, the same on every rank, into masters, rounded to their dtype, and publishes. Collective. Errors:
  /// Error::numerics where a weight leaves the range of its dtype; what can be undone then has been.
  void merge(const std::vector<MergeRule>& rules);
  /// Takes the last merge out; nothing else may have changed the weights it changed. Collective. Errors: Error::input
  /// when there is none.
  void unmerge();

  size_t merges() const { return merges_.size(); }
  /// What this rank keeps for undoing.
  int64_t bytes_kept() const;

 private:
  struct Change {
    MergeRule rule;
    at::Tensor used;                 ///< scale of the parameter's rows that depended on W
    std::vector<std::byte> residue;  ///< of this rank's elements
  };
  using Merge = std::vector<Change>;

  bool fold(Change& change);
  void restore(const Change& change);
  void publish(const Merge& merge);

  Weights& weights_;
  bool undoable_;
  std::vector<Merge> merges_;
};

}  // namespace echelon
