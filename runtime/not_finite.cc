#include "runtime/not_finite.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "comm/agree.h"
#include "sharding/unit.h"

namespace echelon {

namespace {

std::vector<const Parameter*> trained(const Weights& weights) {
  std::vector<const Parameter*> parameters = weights.parameters();
  std::erase_if(parameters, [](const Parameter* parameter) { return !parameter->trained(); });
  return parameters;
}

bool is_finite(FlatShard& shard, const Parameter* parameter) {
  for (const Segment& segment : shard.segments()) {
    if (segment.parameter != parameter) continue;
    at::Tensor gradient = shard.gradient().narrow(0, segment.offset, segment.length);
    if (!at::isfinite(gradient).all().item<bool>()) return false;
  }
  return true;
}

std::string of_ranks(const std::vector<size_t>& ranks, size_t all) {
  if (ranks.size() == all) return "the loss of every rank";
  return fmt::format("the loss of rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "));
}

}  // namespace

std::string find_not_finite(const Weights& weights, const Mesh& mesh, bool loss_is_finite) {
  const Group& world = mesh.world();
  std::vector<const Parameter*> parameters = trained(weights);
  std::vector<bool> found(static_cast<size_t>(world.size()));
  found[static_cast<size_t>(world.rank())] = !loss_is_finite;
  for (const Parameter* parameter : parameters) found.push_back(!is_finite(parameter->shard(), parameter));
  found = agree_any(world, found, "not finite");

  std::vector<std::string> words;
  auto first = std::find(found.begin() + world.size(), found.end(), true);
  if (first != found.end()) {
    const Parameter* parameter = parameters[static_cast<size_t>(first - found.begin() - world.size())];
    words.push_back(fmt::format("first the gradient of {}", parameter->name()));
  }
  std::vector<size_t> ranks;
  for (size_t rank = 0; rank < static_cast<size_t>(world.size()); ++rank)
    if (found[rank]) ranks.push_back(rank);
  if (!ranks.empty()) words.push_back(of_ranks(ranks, static_cast<size_t>(world.size())));
  return fmt::format("{}", fmt::join(words, "; "));
}

}  // namespace echelon
