// Whether ranks still hold alike what they must hold alike.
#pragma once

#include "runtime/trainer.h"

namespace echelon {

/// Compares a hash of each tensor that several ranks keep a copy of: values below ZeRO-3, masters and optimizer state
/// at ZeRO-0, what is replicated on `tp`, and the replicas of synchronous training. A bit that flipped in memory, or a
/// processor that computed wrong, shows here and nowhere else. Collective.
/// Errors: Error::comm that names the tensor and the ranks whose copy differs (those in the minority, where there is
/// one): the job may go on from its last checkpoint.
void compare_replicas(Trainer& trainer);

}  // namespace echelon
