// ZeRO: which rank keeps which part of values, gradients and optimizer state.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "comm/mesh.h"
#include "sharding/exchange.h"
#include "sharding/foresight.h"

namespace echelon {

struct ZeroOptions {
  int stage = 3;  ///< 0: all replicated; 1: optimizer state sharded; 2: and gradients; 3: and values
  at::ScalarType values = at::ScalarType::Float;  ///< dtype of computation
  at::ScalarType master = at::ScalarType::Float;  ///< dtype of gradients, masters and optimizer state
  bool overlap = true;  ///< values and gradients travel between nodes while others are computed; takes two Units' memory
};

/// Unit-sized gradient memory that is used again: one Unit after the other writes its gradient, has it reduced to the
/// owned shard, and hands the memory back. Where a reduction goes on in the background the next Unit writes into a
/// second bucket. Every rank asks in the same order, so that allocation is collective.
class Buckets {
 public:
  enum class Use { none, backward, reduction };
  struct Bucket {
    at::Tensor memory;
    Use use = Use::none;
  };
  /// A bucket of at least `elements`; its content is undefined.
  Bucket& acquire(int64_t elements, at::ScalarType dtype, const Group& group);
  /// Free again after `reduction`. Null: the gradient lies in memory of its own.
  void give_back(Bucket* bucket, Work reduction);
  /// Waits for all reductions.
  void settle();

 private:
  struct Leaving {
    Bucket* bucket;
    Work reduction;
  };

  Bucket* smallest_free(int64_t elements) const;
  int64_t outside_backward() const;
  void settle_first();

  std::vector<std::unique_ptr<Bucket>> buckets_;
  std::deque<Leaving> leaving_;
};

/// What the Units of one model share. Source: Rajbhandari et al. 2020 (ZeRO).
class Zero {
 public:
  Zero(const Mesh& mesh, ZeroOptions options) : mesh(mesh), options(options), exchange(exact_exchange()) {}

  const Mesh& mesh;
  const ZeroOptions options;
  Buckets buckets;
  Foresight foresight;
  int units = 0;  ///< so far
  std::unique_ptr<Exchange> exchange;
  /// Where the step stands: gradients of the first micro-step overwrite, those of the last are reduced (stages 0 and
  /// 1).
  bool first_micro_step = true, last_micro_step = true;

  bool shards_values() const { return options.stage >= 3; }
  /// A rank alone owns every gradient, and writes it where it stays.
  bool shards_gradients() const { return options.stage >= 2 && mesh.dp_in_replica().size() > 1; }
  bool shards_state() const { return options.stage >= 1; }
  bool keeps_master() const { return options.values != options.master; }
};

}  // namespace echelon
