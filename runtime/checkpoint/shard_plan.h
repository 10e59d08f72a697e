// This rank's part of a checkpoint: what it writes, and the values.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "cluster/base/safetensors.h"
#include "runtime/trainer.h"

namespace echelon {

/// One rank's files, said without the trainer, so that another thread can write them.
struct ShardPlan {
  std::string file, writer;
  std::vector<TensorEntry> tensors;             ///< rows of masters, optimizer state and what the exchange keeps
  std::map<std::string, std::string> metadata;  ///< of the file: where the rows stand in their tensors
  std::string state;                            ///< of the file state.json; only the first rank writes it
  int64_t bytes = 0;                            ///< of all tensors
};

ShardPlan shard_plan(Trainer& trainer, int64_t step);

/// How long values can be read.
enum class Lasts { call, until_update };

/// Hands the values of all planned tensors to `take`, in the order of the plan, in any memory. Collective: a rank that
/// can no longer write must go through it too.
void visit_planned(Trainer& trainer,
                   const std::function<void(const std::string& name, const at::Tensor& values, Lasts lasts)>& take);

/// The layout in words, for the manifest.
std::string layout_text(const Trainer& trainer);

}  // namespace echelon
