// Writes a training state as rank-sharded safetensors, while training goes on or at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "runtime/checkpoint/snapshot.h"
#include "runtime/store/checkpoint_store.h"
#include "runtime/trainer.h"

namespace echelon {

/// Saves masters and optimizer state behind a step: every rank writes whole rows into a staging folder and votes with
/// their hashes, rank 0 commits them with one rename and then removes all but the newest `keep`. The files are readable
/// by torch.distributed.checkpoint.
///
/// Between start() and its end training goes on; its next update waits until what is not written yet is copied. A
/// thread of each rank writes, and later one of rank 0 commits; no thread but the caller's enters a collective. So the
/// caller asks at a step's end whether any rank is busy, and calls advance() when none is:
///
///     saver.start(50);                       // waits for an undecided save
///     … steps …  if (no rank is busy()) saver.advance();      // votes; the next time: is it committed?
///     saver.finish();
///
/// Everything that is not const is collective. Errors: Error::storage on every rank, with the step; that save is then
/// undone, the steps before are untouched, and the next one can start.
class CheckpointSaver {
 public:
  CheckpointSaver(Trainer& trainer, CheckpointStore store, int64_t keep);
  /// Gives up a save that is being written; not collective.
  ~CheckpointSaver();
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  /// Takes the memory for copies while the first steps run: start() then need not wait for it. Not collective.
  void prepare();
  /// Durable when it returns; needs no memory for a copy. The undecided save must have been finished.
  void save(int64_t step);
  /// Holds the state still (Snapshot) and returns. The undecided save must have been finished.
  /// Errors: also Error::memory when there is no room for the copy.
  void start(int64_t step);
  /// Whether a thread of this rank is at work.
  bool busy() const;
  /// Takes an undecided save one stage further; waits for this rank's thread if it is busy. The step, when that made it
  /// durable; nothing if there is more to do, or nothing to do.
  std::optional<int64_t> advance();
  /// Waits until nothing is undecided. The step that became durable.
  std::optional<int64_t> finish();

 private:
  struct Pending {
    int64_t step;
    std::string folder;
    std::future<std::vector<FileRecord>> votes;  // until they are counted
    std::future<void> commit;                    // afterwards, on rank 0
  };
  const Group& world() const { return trainer_.mesh().world(); }
  void begin(const ShardPlan& plan, int64_t step);
  std::vector<FileRecord> write_snapshot();
  void count_votes();
  void undo(const Error& error);

  Trainer& trainer_;
  CheckpointStore store_;
  int64_t keep_;
  Snapshot snapshot_;
  std::atomic<bool> given_up_ = false;
  std::future<void> room_;          // of a snapshot, being prepared
  std::optional<Pending> pending_;  // last: its threads read the rest
};

/// Saves at once, without a saver of longer life.
void save_checkpoint(Trainer& trainer, const CheckpointStore& store, int64_t step, int64_t keep);

}  // namespace echelon
