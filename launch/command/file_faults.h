// Faults of the files of a run, for `echelon drill`: as Fault::inject.
#pragma once

#include <random>

#include "launch/command/drill_job.h"

namespace echelon {

/// Stopped, one bit of its newest checkpoint changed, and the same command again.
int flip_in_a_checkpoint(DrillJob& job, std::mt19937_64& random);
/// The same with a file that is cut short.
int cut_a_checkpoint(DrillJob& job, std::mt19937_64& random);
/// The same with a file that is removed.
int lose_a_file(DrillJob& job, std::mt19937_64& random);
/// Files of its checkpoints cannot be written whole, as on a full disk, until the run has said so. Errors:
/// Error::recipe where other files of the run are as large.
int fail_a_save(DrillJob& job, std::mt19937_64& random);

}  // namespace echelon
