// What a collective is, in a form that ranks can compare.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <c10/core/ScalarType.h>

#include "cluster/base/error.h"
#include "comm/group.h"

namespace echelon {

enum class Op : int32_t {
  none,
  split,
  allocate,
  all_reduce,
  all_gather,
  reduce_scatter,
  all_to_all,
  broadcast,
  send,
  recv,
  barrier
};
std::string_view name_of(Op op);
/// "float32", "bfloat16", …
std::string_view name_of(at::ScalarType dtype);

/// FNV-1a: the same on every machine, so that ranks can compare long texts by one number.
uint64_t text_hash(std::string_view text);

/// One collective, as Group describes it to a backend.
struct Collective {
  int64_t sequence = 0;  ///< counts the group's collectives from 1
  Op op = Op::none;
  std::string name;
  at::ScalarType dtype = at::kByte;
  int64_t count = 0;  ///< elements of the larger tensor
  int root = -1;      ///< of a broadcast; the other rank of a send or recv
  Reduce reduce = Reduce::sum;
  bool accumulate = false;
};

/// What every rank must have in common, as bytes that lie in shared memory or travel in a message.
struct Signature {
  int64_t sequence;
  int64_t count;
  uint64_t name_hash;
  Op op;
  at::ScalarType dtype;
  int32_t root;
  Reduce reduce;
  char name[96];  ///< cut where longer; the hash covers all of it

  static Signature of(const Collective& collective);
  bool agrees(const Signature& other) const;
  /// `all_reduce "layers.0.mlp" of 128 float32 (number 17)`
  std::string text() const;
};

/// True when a send and a recv, each numbered among those of its pair of ranks, are of the same message.
bool same_message(const Signature& one, const Signature& other);

/// Error::comm that names two ranks and what each of them has entered.
Error disagreement(int rank, const Signature& mine, int other_rank, const Signature& theirs);

}  // namespace echelon
