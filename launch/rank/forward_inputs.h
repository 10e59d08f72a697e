// The input file of `forward`.
#pragma once

#include <string>

#include "models/architecture.h"
#include "models/batch.h"

namespace echelon {

/// The tensors of a safetensors file, checked against the model: names, dtype, shapes, ids in the vocabulary, length.
/// Labels stay as they are in the file: aligned with input_ids. Errors: Error::input.
Batch read_forward_inputs(const std::string& path, const Architecture& architecture);

/// Labels aligned with logits: those of a causal model move one position to the left.
/// Errors: Error::input when no target is left.
void align_labels(Batch& batch, bool causal);

/// The part of a batch that data parallel rank `rank` of `ranks` computes: a share of its rows where they divide, else
/// all of them. Labels of rows that another rank computes as well are removed here, so that each counts once.
Batch share_of(const Batch& batch, int rank, int ranks);

}  // namespace echelon
