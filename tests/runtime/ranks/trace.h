// What a training of a few steps left behind, for comparing layouts.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "comm/mesh.h"
#include "runtime/trainer.h"

namespace echelon::testing {

using NamedTensors = std::map<std::string, at::Tensor>;

struct Trace {
  std::vector<double> losses, norms;
  NamedTensors weights, gradients;  ///< gradients of the last step
};

/// Whole tensors on every rank. Collective.
NamedTensors whole(Trainer& trainer, const std::function<at::Tensor(FlatShard&)>& owned);
/// Collective over `world`.
Trace train(const Recipe& recipe, const Group& world, MeshShape shape, int64_t steps);

/// Part A of the equality of layouts: float64 decides, for every optimizer. Trains on one rank and on all of the
/// session's.
void expect_equal_in_float64(Recipe recipe, int64_t steps);

/// Whether the session's ranks can be shared out by `tp`.
bool has_ranks_for(int tp);

}  // namespace echelon::testing
