// Writes a training state as rank-sharded safetensors.
#pragma once

#include <cstdint>

#include "runtime/store/checkpoint_store.h"
#include "runtime/trainer.h"

namespace echelon {

/// Saves masters and optimizer state behind `step` and commits them with one rename; then removes all but the newest
/// `keep`. Every rank writes whole rows, the files are readable by torch.distributed.checkpoint. Collective.
/// Errors: Error::storage on every rank; nothing is then committed and earlier steps are untouched.
void save_checkpoint(Trainer& trainer, const CheckpointStore& store, int64_t step, int64_t keep);

}  // namespace echelon
