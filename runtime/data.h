// Which samples a step sees, in which order, on which rank.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/group.h"
#include "models/objective.h"
#include "runtime/source.h"
#include "runtime/store/roll_backs.h"

namespace echelon {

/// The order of samples is a function of (seed, epoch) only; each rank takes its slice of every global batch.
class Data {
 public:
  struct Options {
    bool shuffle = true;
    int64_t global_batch = 32;
    int64_t micro_batch = 0;   ///< 0: the rank's whole share
    int64_t vocabulary = 0;    ///< of the model; larger ids are refused
  };
  Data(std::unique_ptr<Source> source, const Objective& objective, const Seed& seed, Options options);

  /// Samples that these left out are not seen.
  void leave_out(RollBacks roll_backs) { roll_backs_ = std::move(roll_backs); }
  const RollBacks& roll_backs() const { return roll_backs_; }
  /// Position in the data at which `step` begins.
  int64_t first_sample(int64_t step) const { return roll_backs_.first_sample(step, options_.global_batch); }
  /// Micro-batches of `rank` of `ranks` at step `step` (1 = first), in order.
  std::vector<Batch> step(int64_t step, int rank, int ranks) const;
  /// Global batch `index` (from 0) of one pass over the source in order; past the end, batches are shorter or empty.
  /// Ranks without samples get batches without targets, so that everybody takes part.
  std::vector<Batch> pass(int64_t index, int rank, int ranks) const;
  int64_t batches_in_pass() const;

  const Source& source() const { return *source_; }

 private:
  int64_t sample_at(int64_t position) const;
  Batch batch(const std::vector<int64_t>& samples, const Seed& seed) const;
  std::vector<Batch> batches(const std::vector<int64_t>& mine, const Seed& seed, int64_t count) const;

  std::unique_ptr<Source> source_;
  const Objective& objective_;
  Seed seed_;
  Options options_;
  RollBacks roll_backs_;
};

}  // namespace echelon
