// How attention is cut into parts, and the memory that each thread needs for it.
#pragma once

#include "models/kernels/attention_kernel.h"

namespace echelon {

/// Parts that can be done side by side, one a block of queries; results do not depend on who does which.
ECHELON_INLINE int64_t attention_forward_parts(const AttentionShape& s) {
  return s.batch * s.heads * ((s.queries + kAttentionBlock - 1) / kAttentionBlock);
}
/// The same, one a key head with all its queries: sums over queries run in one order, whatever the number of threads.
ECHELON_INLINE int64_t attention_backward_parts(const AttentionShape& s) { return s.batch * s.kv_heads; }

/// Hands out pieces of `base`, 64-byte aligned where it is; counts only, where it is null.
struct AttentionArena {
  float* base;
  int64_t used = 0;

  /// `rows` is a multiple of 16.
  __attribute__((always_inline)) float* take(int64_t rows, int64_t columns) {
    float* piece = base ? base + used : nullptr;
    used += rows * columns;
    return piece;
  }
};

/// A row of a tile, in float32 or in pairs of bfloat16: up to whole vectors of any instruction set.
ECHELON_INLINE int64_t attention_row(const AttentionShape& s) { return (s.width + 15) / 16 * 16; }
ECHELON_INLINE int64_t attention_keys(const AttentionShape& s) {
  return (s.keys + kAttentionBlock - 1) / kAttentionBlock * kAttentionBlock;
}

struct AttentionForwardScratch {
  __attribute__((always_inline)) AttentionForwardScratch(const AttentionShape& s, float* base)
      : arena{base}, row(attention_row(s)) {}

  AttentionArena arena;
  int64_t row;
  float* queries = arena.take(row, kAttentionBlock);
  float* rows = arena.take(kAttentionBlock, row);
  float* columns = arena.take(kAttentionBlock, row);
  float* scores = arena.take(kAttentionBlock, kAttentionBlock);
  float* weights = arena.take(kAttentionBlock, kAttentionBlock);
  float* out = arena.take(row, kAttentionBlock);
};

struct AttentionBackwardScratch {
  __attribute__((always_inline)) AttentionBackwardScratch(const AttentionShape& s, float* base)
      : arena{base}, row(attention_row(s)), keys(attention_keys(s)) {}

  AttentionArena arena;
  int64_t row, keys;
  float* key_rows = arena.take(keys, row);
  float* key_columns = arena.take(keys, row);
  float* value_rows = arena.take(keys, row);
  float* key_gradient = arena.take(keys, row);
  float* value_gradient = arena.take(keys, row);
  float* rows = arena.take(kAttentionBlock, row);
  float* queries = arena.take(row, kAttentionBlock);
  float* query_columns = arena.take(kAttentionBlock, row);
  float* out_rows = arena.take(kAttentionBlock, row);
  float* outs = arena.take(row, kAttentionBlock);
  float* out_columns = arena.take(kAttentionBlock, row);
  float* query_gradient = arena.take(kAttentionBlock, row);
  float* scores = arena.take(kAttentionBlock, kAttentionBlock);
  float* gradients = arena.take(kAttentionBlock, kAttentionBlock);
  float* weight_rows = arena.take(kAttentionBlock, kAttentionBlock);
  float* score_rows = arena.take(kAttentionBlock, kAttentionBlock);
  float* score_columns = arena.take(kAttentionBlock, kAttentionBlock);
};

template <class Scratch>
ECHELON_INLINE int64_t attention_scratch_floats(const AttentionShape& shape) {
  return Scratch(shape, nullptr).arena.used;
}

}  // namespace echelon
