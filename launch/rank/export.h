// `echelon-rank export`: a checkpoint as a Hugging Face folder.
#pragma once

#include "comm/group.h"
#include "launch/options/arguments.h"

namespace echelon {

/// Loads the weights of a checkpoint (or of a Hugging Face folder) over the ranks and writes them as a folder.
/// Collective. Errors: Error::storage, Error::input.
void export_model(const ExportArguments& arguments, const Group& world);

}  // namespace echelon
