// A whole run: from a recipe and a folder to a trained, exported model.
#pragma once

#include <memory>
#include <string>

#include "comm/ledger/rank_progress.h"
#include "comm/mesh.h"
#include "runtime/recipe/recipe.pb.h"

namespace echelon {

enum class Resume { automatic, never };

struct RunOptions {
  std::string folder;  ///< of the run
  Resume resume = Resume::automatic;
  std::string resume_from;     ///< a checkpoint to start from instead of the folder's own; empty: none
  bool live_progress = false;  ///< a terminal is at the other end
  bool trust_folder = false;
  std::string job;  ///< the scheduler's name for it, for people who find the folder in use; empty: none
  std::shared_ptr<RankProgress> progress = std::make_shared<RankProgress>();  ///< told what the rank is at
  int64_t profile_step = 0;  ///< is recorded into profile/; 0: none
  int64_t before_step = 0;  ///< go on from a checkpoint before this one, which is set aside; 0: from the newest
  /// Asked at the end of each step on every rank; true on any rank stops the run after a checkpoint.
  bool (*stop_requested)() = nullptr;
};

/// Trains until `steps` and exports, or until it is asked to stop. Collective. Returns the exit code: 0, or 75 when
/// stopped behind a durable checkpoint. Errors: all kinds.
int run_training(const Recipe& recipe, const Mesh& mesh, const RunOptions& options);

}  // namespace echelon
