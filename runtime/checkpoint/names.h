// Names inside a checkpoint's folder.
#pragma once

#include <string>

#include <fmt/format.h>

namespace echelon {

inline constexpr const char* kStateFile = "state.json";

/// The file of a rank (from 0), as torch.distributed.checkpoint names its safetensors shards.
inline std::string shard_name(int rank, int ranks) {
  return fmt::format("shard-{:05}-model-{:05}-of-{:05}.safetensors", rank + 1, 1, 1);
}

/// "optim.exp_avg." stands before the tensor's name.
inline std::string state_prefix(const std::string& state) { return "optim." + state + "."; }

}  // namespace echelon
