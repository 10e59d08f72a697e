// Old checkpoints are read again while a run goes on: a byte that changed on the disk is found before it is needed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/store/checkpoint_store.h"

namespace echelon {

/// A step of which bytes are wrong.
struct DamagedStep {
  int64_t step = 0;
  std::vector<std::string> damage;    ///< one sentence each
  std::optional<int64_t> whole_step;  ///< another one, of which every byte was right when that was found
};

/// Which checkpoint is verified next, and what is found: without clock, thread or change to the folder.
class Scrub {
 public:
  explicit Scrub(CheckpointStore store) : store_(std::move(store)) {}

  /// The step that was verified longest ago; of those that never were, the oldest. Nothing when there are no steps.
  std::optional<int64_t> next() const;
  /// Verifies every byte of that step. Nothing when it is whole, or was removed meanwhile. `given_up` is asked before
  /// each tile; once true, nothing is found. Errors: Error::storage when the steps cannot be listed, or a
  /// file cannot be read.
  std::optional<DamagedStep> look(const std::function<bool()>& given_up = {});

 private:
  std::vector<std::string> damage_of(int64_t step, const std::function<bool()>& given_up) const;
  std::optional<int64_t> whole_step_beside(int64_t damaged, const std::function<bool()>& given_up) const;

  CheckpointStore store_;
  std::map<int64_t, int64_t> turns_;  // of steps that were verified: the higher, the later
  int64_t turn_ = 0;
};

/// For the holder of the folder, while it saves and removes nothing. Moves the step to `damaged/`: it no longer counts
/// among those that are kept. It stays where it is unless the whole step is still there: a run that has steps never
/// loses the last one. Gives what to tell people, one sentence a line; none when the step was removed meanwhile.
std::vector<std::string> settle(const CheckpointStore& store, const DamagedStep& found);

/// Looks every so many minutes, from a thread that takes what others leave of processor and disk, until destroyed: that
/// waits for a tile at most.
class BackgroundScrub {
 public:
  BackgroundScrub(const CheckpointStore& store, double minutes);
  ~BackgroundScrub();
  /// What was found since it was asked last.
  std::vector<DamagedStep> take();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace echelon
