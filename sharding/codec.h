// Gradients in fewer bits.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "comm/group.h"
#include "sharding/exchange.h"
#include "sharding/route.h"

namespace echelon {

/// Writes values in few bits, block by block, each with a float32 scale of its own.
class Codec {
 public:
  explicit Codec(int64_t block) : block_(block) {}
  virtual ~Codec() = default;

  /// Bytes of `elements` values.
  int64_t bytes(int64_t elements) const { return 4 * blocks(elements) + code_bytes(elements); }
  /// Shapes: `values` [pieces, n], the result uint8 [pieces, bytes(n)]. A value that is not finite makes its block not
  /// finite.
  at::Tensor encode(const at::Tensor& values) const;
  /// Values [n] of one encoded piece [bytes(n)], in the dtype of `options`.
  at::Tensor decode(const at::Tensor& encoded, int64_t elements, const at::TensorOptions& options) const;

 protected:
  virtual int64_t code_bytes(int64_t elements) const = 0;
  /// One float32 [pieces, blocks] for blocks [pieces, blocks, block] that are filled up with zeros; `elements` of a
  /// piece.
  virtual at::Tensor scales(const at::Tensor& blocks, int64_t elements) const = 0;
  /// uint8 [pieces, code_bytes(n)] of `values` [pieces, n] whose scales are `scales` [pieces, n].
  virtual at::Tensor code(const at::Tensor& values, const at::Tensor& scales) const = 0;
  /// Values [n] at scale 1 of a code [code_bytes(n)].
  virtual at::Tensor decode_code(const at::Tensor& code, int64_t elements, const at::TensorOptions& options) const = 0;

  int64_t block() const { return block_; }

 private:
  int64_t blocks(int64_t elements) const { return (elements + block_ - 1) / block_; }
  at::Tensor to_elements(const at::Tensor& scales, int64_t elements) const;

  int64_t block_;
};

/// Sums the pieces [group size, n] that every rank of the route has encoded, in rank order and in the dtype of `owned`:
/// owners decode and add. Where every rank owns everything, either all codes go to all ranks, or the owners' sums do:
/// the cheaper for the number of ranks, with the same bits.
void sum_encoded(const Codec& codec, const at::Tensor& encoded, const Reduction& reduction, const Route& route);

/// Bytes that the route and sum_encoded() send in `reductions` reductions, of all ranks together.
int64_t bytes_of_encoded_sum(const Codec& codec, const FlatShard& shard, const Placement& placement,
                             bool between_nodes_only, int64_t reductions);

}  // namespace echelon
