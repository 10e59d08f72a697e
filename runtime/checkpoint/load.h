// Reads a training state, whatever layout wrote it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "models/interchange/interchange.h"
#include "runtime/store/checkpoint_store.h"
#include "runtime/trainer.h"
#include "sharding/weights.h"

namespace echelon {

/// The ranks whose exchanges have left residuals in a checkpoint.
struct ExchangeLayout {
  int ranks = 0, tp = 1;  ///< ranks 0: none have

  bool operator==(const ExchangeLayout&) const = default;
};

/// The tensors of a checkpoint, put together from the rows that its ranks wrote. Only what is read is verified and
/// touched.
class CheckpointReader : public TensorReader {
 public:
  /// Errors: Error::storage for damage, or rows that do not make whole tensors.
  explicit CheckpointReader(const Checkpoint& checkpoint);

  bool has(const std::string& name) const override { return chunks_.contains(name); }
  at::Tensor read(const std::string& name, const Slice& slice) override;
  /// Adds to `sum`, the part `slice` of a tensor, what the checkpoint holds of it under `name`: all, some or nothing.
  void add(const std::string& name, const Slice& slice, const at::Tensor& sum);
  /// Whether it holds a whole tensor `name` of this shape in one piece.
  bool holds(const std::string& name, const std::vector<int64_t>& sizes) const;

  int64_t step() const { return step_; }
  const Json& config() const { return config_; }
  const std::string& recipe() const { return recipe_; }
  const std::vector<std::string>& optimizer_state() const { return optimizer_state_; }
  /// Copies of masters and optimizer state that it holds: of replicas that trained apart.
  int replicas() const { return replicas_; }
  const ExchangeLayout& exchange_layout() const { return exchange_layout_; }

 private:
  struct Chunk {
    const CheckpointFile* file;
    const TensorEntry* entry;
    Slice slice;
  };
  void read_state(const Checkpoint& checkpoint);
  void index(const CheckpointFile& file, const std::string& place);
  /// What `chunk` holds of `slice` [common.sizes].
  at::Tensor part_of(const Chunk& chunk, const Slice& common) const;

  std::string place_;
  std::vector<CheckpointFile> files_;
  std::map<std::string, std::vector<Chunk>> chunks_;
  int64_t step_ = 0;
  Json config_;
  std::string recipe_;
  std::vector<std::string> optimizer_state_;
  ExchangeLayout exchange_layout_;
  int replicas_ = 1;
};

/// Fills the trainer's weights, optimizer state and what its exchange keeps. Where replicas trained apart, as many of
/// them get each its own; on another number all get the mean. Collective. Errors: Error::storage; Error::recipe when
/// the checkpoint's optimizer keeps other state.
void load_state(Trainer& trainer, CheckpointReader& reader);

/// Whether a folder is one checkpoint.
bool is_checkpoint(const std::string& folder);
/// Architecture, config and weights of a checkpoint; what it does not hold, because it was frozen, comes from where its
/// run had it. Errors: Error::storage, Error::input.
ModelSource open_checkpoint_model(const std::string& folder);

}  // namespace echelon
