// Runs a recipe one step at a time.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cluster/base/error.h"
#include "cluster/base/registry.h"
#include "comm/ledger/rank_progress.h"
#include "comm/mesh.h"
#include "models/adapter_set.h"
#include "models/interchange/interchange.h"
#include "models/model.h"
#include "models/objective.h"
#include "runtime/data.h"
#include "runtime/memory_guard.h"
#include "runtime/optimizer.h"
#include "runtime/recipe/recipe.pb.h"
#include "runtime/schedule.h"
#include "runtime/stopwatch.h"

namespace echelon {

/// Bytes sent by purpose, in the order of Purpose.
using BytesSent = std::array<int64_t, 5>;

/// What one step did; the same on every rank.
struct Report {
  int64_t step = 0;
  double loss = 0;                       ///< mean over the global batch's targets
  std::map<std::string, double> losses;  ///< by name of the objective's terms
  double learning_rate = 0;
  double gradient_norm = 0;         ///< global, before clipping; root mean square over replicas that train apart
  std::string not_finite_where;     ///< of a loss or gradient that is not finite: as of find_not_finite()
  int64_t skipped = 0;              ///< steps in a row, this one the last, that were left out; 0: this one was taken
  int64_t targets = 0, tokens = 0;  ///< global; tokens: inputs that are not padding
  StepSeconds seconds;
  BytesSent bytes_sent{};         ///< all ranks
  int64_t memory_peak_bytes = 0;  ///< of the largest rank
};

/// "loss nan and gradient norm inf are not finite"; empty if both are. The same words on every layout.
std::string not_finite(const Report& report);

/// Loss or gradient of a step is not finite, and it cannot be left out: the same on every rank, nothing was updated.
struct Diverged : Error {
  /// `where`: as of find_not_finite().
  Diverged(int64_t step, const std::string& reason, const std::string& where);
  std::string reason;
};

struct Evaluation {
  double loss = 0;
  int64_t targets = 0;
  double seconds = 0;
};

class Trainer {
 public:
  /// Builds everything that the recipe names and fills the weights. Collective.
  Trainer(const Recipe& recipe, const Mesh& mesh);
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  /// One update, or none when loss or gradient is not finite. Errors: Diverged for such a step where the recipe leaves
  /// out no more in a row, or where the exchange has kept the gradient; as of check_memory().
  Report step(int64_t step);
  /// From now on tells `progress` what this rank is at, step by step and, in evaluations, batch by batch.
  void report_to(std::shared_ptr<RankProgress> progress) { progress_ = std::move(progress); }
  /// Masters or optimizer state were set from outside.
  void state_was_set() { guard_->forget(); }
  /// Looks at what is guarded of this rank's masters and optimizer state; to be called before they are saved. Errors:
  /// as of MemoryGuard::check, on this rank alone.
  void check_memory() const { guard_->check(); }
  /// Called in every step before masters and optimizer state change.
  void before_update(std::function<void()> action) { before_update_ = std::move(action); }
  /// The run goes on behind so many steps in a row that were left out.
  void go_on_after_skipped(int64_t steps) { skipped_in_a_row_ = steps; }
  /// Steps in a row, up to the last one that ended, that were left out.
  int64_t skipped_in_a_row() const { return skipped_in_a_row_; }
  /// Samples that these left out are not seen.
  void leave_out(RollBacks roll_backs) { train_->leave_out(std::move(roll_backs)); }
  bool evaluates() const { return validation_ != nullptr; }
  /// Loss over the validation source, or its first `batches` global batches. Collective.
  Evaluation evaluate(int64_t batches);
  /// The batches that `step` would see, of all micro-steps of a single rank.
  std::vector<Batch> batches(int64_t step) const { return train_->step(step, 0, 1); }

  const Recipe& recipe() const { return recipe_; }
  const Mesh& mesh() const { return mesh_; }
  Model& model() { return *model_; }
  const AdapterSet& adapters() const { return *adapters_; }
  Zero& zero() { return *zero_; }
  const ModelSource& source() const { return source_; }
  const Data& train_data() const { return *train_; }
  /// Masters and optimizer state that this rank owns, Unit by Unit.
  std::vector<Owned>& owned() { return owned_; }
  const Optimizer& optimizer() const { return *optimizer_; }
  /// Of the loaded model, else of the data; empty: unknown.
  std::string tokenizer_folder() const {
    return source_.tokenizer_folder.empty() ? tokenizer_folder_ : source_.tokenizer_folder;
  }

 private:
  void build_model();
  void build_data();
  void build_optimizer();

  int64_t count_targets(const std::vector<Batch>& batches, const Group& ranks) const;
  /// The sum of the losses, which are added to `report` as well.
  at::Tensor forward(const Batch& batch, const Seed& seed, Report& report);
  /// Divides by `targets`: those of all samples that the gradient sums over.
  void forward_and_backward(const std::vector<Batch>& batches, int64_t targets, const Seed& seed, Report& report);
  /// Returns the gradient norm that this rank clips by: of its replica.
  double reduce_losses_and_norm(Report& report) const;
  /// Whether the step is to be left out: the same on every rank.
  bool skips(const Report& report) const;
  void update(const Report& report, double gradient_norm);
  BytesSent bytes_so_far() const;
  void gather_measurements(Report& report, const BytesSent& before);

  Recipe recipe_;
  const Mesh& mesh_;
  Registry registry_;
  Seed seed_;
  ModelSource source_;
  std::string tokenizer_folder_;
  std::unique_ptr<Zero> zero_;
  std::unique_ptr<Objective> objective_;
  std::unique_ptr<AdapterSet> adapters_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Data> train_, validation_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Schedule> schedule_;
  std::vector<Owned> owned_;
  std::unique_ptr<MemoryGuard> guard_;
  int64_t skipped_in_a_row_ = 0;
  std::function<void()> before_update_;
  std::shared_ptr<RankProgress> progress_ = std::make_shared<RankProgress>();
};

/// All Parts that Echelon ships; generated by the build.
void register_builtin_methods(Registry& registry);

}  // namespace echelon
