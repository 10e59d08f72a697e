// The faults that `echelon drill` can make, each with what is promised about it.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "launch/command/drill_job.h"

namespace echelon {

struct Fault {
  std::string name;
  std::string what;     ///< done to the run
  std::string promise;  ///< that the drill holds it to, beside equal bits
  /// Does harm to the running job behind its step and sees it to its end: its exit code.
  int (*inject)(DrillJob& job, std::mt19937_64& random);
};

const std::vector<Fault>& faults();
/// Errors: Error::usage with the nearest names.
const Fault& find_fault(const std::string& name);

}  // namespace echelon
