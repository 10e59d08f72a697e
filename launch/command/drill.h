// `echelon drill`: a recipe is run twice, once with a fault that is made for real, and what that cost is reported.
#pragma once

#include <string>

#include "launch/options/arguments.h"
#include "launch/options/installation.h"

namespace echelon {

/// Every fault with what is promised about it.
std::string list_faults();

/// Runs the recipe unbroken and broken, both below the folder `out`, and prints when the fault was noticed, when the
/// run went on, how many steps were repeated, and whether the bits are those of the unbroken run. Errors: Error::usage
/// for an unknown fault; Error::recipe when the run is too short to be hit; Failed with the exit code of a run that
/// ends otherwise than promised; Error::internal when the bits differ.
void drill(const DrillArguments& arguments, const Installation& installation);

}  // namespace echelon
