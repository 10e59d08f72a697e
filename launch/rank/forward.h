// `echelon-rank forward`: a model's outputs for the tensors of a file.
#pragma once

#include "comm/group.h"
#include "launch/options/arguments.h"

namespace echelon {

/// Reads input_ids, attention_mask, token_type_ids and labels, runs the model on any mesh, writes its outputs (and with
/// `gradients` grad.<parameter> of the mean cross-entropy of `labels`), all float32. Collective; rank 0 writes.
/// Errors: Error::input for inputs that do not fit the model, checked before it is built.
void forward(const ForwardArguments& arguments, const Group& world);

}  // namespace echelon
