// The checkpoint that a run goes on from.
#pragma once

#include <string>

#include "comm/group.h"
#include "runtime/store/checkpoint_store.h"

namespace echelon {

/// The folder of the newest step of which every byte is right; "" when there are no steps. The ranks share the reading.
/// Newer steps that are damaged are set aside, each with one sentence on stderr; so are those from `before_step` on,
/// unless it is 0. Collective; rank 0 holds the run folder. Errors: Error::storage when there are steps and none is
/// whole: a run never starts again from 0 by itself.
std::string newest_whole_step(const CheckpointStore& store, const Group& world, int64_t before_step = 0);

}  // namespace echelon
