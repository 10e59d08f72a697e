// Where numbers of a step are not finite.
#pragma once

#include <string>

#include "comm/mesh.h"
#include "sharding/weights.h"

namespace echelon {

/// For a step whose loss or gradient is not finite: "first the gradient of embeddings.tokens.weight; the loss of rank 2",
/// in the order of the model. `loss_is_finite`: of this rank's own samples. The same on every rank. Collective.
std::string find_not_finite(const Weights& weights, const Mesh& mesh, bool loss_is_finite);

}  // namespace echelon
