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

/// Before the names of what replica `replica` keeps for itself; the first one's stand as those of a run without
/// replicas.
inline std::string replica_prefix(int replica) { return replica == 0 ? "" : fmt::format("replica.{}.", replica); }

/// Before the tensor's name: what the exchange keeps beside the masters. `what` is "shared", …
inline std::string exchange_prefix(const std::string& what) { return "exchange." + what + "."; }

/// What the exchange of rank `rank` alone knows of `tensor`: `what` is "residual", …
inline std::string summand_name(const std::string& what, int rank, const std::string& tensor) {
  return fmt::format("exchange.{}.{}.{}", what, rank, tensor);
}

/// What the exchange of the tensor parallel rank `tp_rank` starts its next reduction of `tensor` from.
inline std::string warm_start_name(int tp_rank, const std::string& tensor) {
  return fmt::format("exchange.warm_start.{}.{}", tp_rank, tensor);
}

}  // namespace echelon
