// What forward and backward of attention share: a block of queries, who may look at which key, dropout.
#pragma once

#include "models/kernels/attention_scratch.h"
#include "models/kernels/dropout_hash.h"
#include "models/kernels/tiles.h"

namespace echelon::kernels::ECHELON_ISA_NAME {
namespace {

constexpr int64_t kBlock = kAttentionBlock;
constexpr float kLog2OfE = 1.44269504088896341f;

template <class T>
struct DotOf {
  using Type = Single;
};
#if defined(__AVX512BF16__)
template <>
struct DotOf<Bfloat16> {
  using Type = Pair;
};
#endif

/// Queries [first, first + count) of a head. In tiles they lie along vectors: statistics of rows are vectors, too.
struct QueryBlock {
  int64_t batch, head, first, count;
  int64_t keys_end;  // no query of the block looks at keys from here on
  int64_t row;       // of the first query in [batch, heads, queries]
};

ECHELON_INLINE QueryBlock query_block(const AttentionShape& s, int64_t batch, int64_t head, int64_t first) {
  int64_t count = smaller(kBlock, s.queries - first);
  int64_t end = s.causal ? smaller(s.keys, s.past + first + count) : s.keys;
  return {batch, head, first, count, end, (batch * s.heads + head) * s.queries + first};
}

template <class T>
ECHELON_INLINE T* row_of(const HeadRows<T>& tensor, int64_t batch, int64_t head, int64_t token) {
  return tensor.data + batch * tensor.batch + head * tensor.head + token * tensor.token;
}
template <class T>
ECHELON_INLINE Rows<T> rows_of(const HeadRows<T>& tensor, int64_t batch, int64_t head, int64_t first, int64_t count,
                               int64_t width) {
  return {row_of(tensor, batch, head, first), tensor.token, count, width};
}

ECHELON_INLINE bool is_permitted(const AttentionShape& s, int64_t batch, int64_t key) {
  return !s.key_mask || s.key_mask[batch * s.keys + key];
}
ECHELON_INLINE bool any_permitted(const AttentionShape& s, int64_t batch, int64_t first, int64_t count) {
  for (int64_t key = first; key < first + count; ++key) {
    if (is_permitted(s, batch, key)) return true;
  }
  return false;
}

ECHELON_INLINE Words lane_numbers() {
  Words numbers;
  for (int i = 0; i < kLanes; ++i) numbers[i] = i;
  return numbers;
}

/// Queries of the block, counted from its first one, that stand before `key`: negative where all of them see more.
ECHELON_INLINE int64_t hidden_queries(const AttentionShape& s, const QueryBlock& block, int64_t key) {
  return s.causal ? key - s.past - block.first : -kBlock;
}

/// Where keys [key, key + rows) must not be looked at, makes scores [rows, kBlock] minus infinity and gradients, if not
/// null, zero. Keys from key + count on are not there.
void forbid(const AttentionShape& s, const QueryBlock& block, int64_t key, int64_t count, int64_t rows, float* scores,
            float* gradients = nullptr) {
  if (!s.key_mask && rows == count && hidden_queries(s, block, key + count - 1) <= 0) return;
  for (int64_t n = 0; n < rows; ++n) {
    bool gone = n >= count || !is_permitted(s, block.batch, key + n);
    int64_t hidden = gone ? kBlock : smaller(kBlock, hidden_queries(s, block, key + n));
    for (int64_t lane = 0; lane < hidden; lane += kLanes) {
      int64_t at = n * kBlock + lane;
      auto is_hidden = lane_numbers() + static_cast<uint32_t>(lane) < static_cast<uint32_t>(hidden);
      store(scores + at, is_hidden ? splat(-__builtin_inff()) : load(scores + at));
      if (gradients) store(gradients + at, is_hidden ? Floats{} : load(gradients + at));
    }
  }
}

// Products of a block that the diagonal crosses leave out most of what is hidden, by strips of rows.
constexpr int64_t kStrip = 16;

/// Calls with each strip's product and first row.
template <class Dot, class Change>
ECHELON_INLINE void multiply_by_strips(const Product& whole, const Change& change) {
  for (int64_t row = 0; row < whole.rows; row += kStrip) {
    Product strip = whole;
    strip.rows = smaller(kStrip, whole.rows - row);
    strip.left += row * whole.left_row;
    strip.out += row * whole.out_row;
    change(strip, row);
    if (strip.vectors > 0 && strip.steps > 0) multiply<Dot>(strip);
  }
}

/// Rows are keys, the first of which the first `hidden` queries do not see; columns are queries.
template <class Dot>
void multiply_keys_by_queries(const Product& whole, int64_t hidden) {
  if (hidden + whole.rows <= kStrip) return multiply<Dot>(whole);
  multiply_by_strips<Dot>(whole, [&](Product& strip, int64_t key) {
    int64_t skipped = larger(0, hidden + key) / kLanes;
    strip.vectors -= skipped;
    strip.right += skipped * kLanes;
    strip.out += skipped * kLanes;
  });
}

/// Rows are keys; sums are over queries.
template <class Dot>
void multiply_over_queries(const Product& whole, int64_t hidden) {
  if (hidden + whole.rows <= kStrip) return multiply<Dot>(whole);
  multiply_by_strips<Dot>(whole, [&](Product& strip, int64_t key) {
    int64_t skipped = larger(0, hidden + key) / 2 * 2 / Dot::kElements;
    strip.steps -= skipped;
    strip.left += skipped * strip.left_step;
    strip.right += skipped * strip.right_step;
  });
}

/// Rows are queries; sums are over keys.
template <class Dot>
void multiply_over_keys(const Product& whole, int64_t hidden) {
  if (hidden + whole.steps * Dot::kElements <= kStrip) return multiply<Dot>(whole);
  multiply_by_strips<Dot>(whole, [&](Product& strip, int64_t query) {
    int64_t seen = larger(0, query + kStrip - hidden);
    strip.steps = smaller(strip.steps, (seen + Dot::kElements - 1) / Dot::kElements);
  });
}

/// Columns are queries; sums are over keys.
template <class Dot>
void multiply_weights(const Product& whole, int64_t hidden) {
  if (hidden + whole.steps * Dot::kElements <= kStrip) return multiply<Dot>(whole);
  for (int64_t vector = 0; vector < whole.vectors; vector += 2) {
    Product part = whole;
    part.vectors = smaller(2, whole.vectors - vector);
    part.steps = smaller(whole.steps, larger(0, (vector + 2) * kLanes - hidden + Dot::kElements - 1) / Dot::kElements);
    part.right += vector * kLanes;
    part.out += vector * kLanes;
    part.factors += vector * kLanes;
    if (part.steps > 0) multiply<Dot>(part);
  }
}

/// The decisions of keyed_dropout() for the rows of a block of queries: their keys, in halves.
struct DropoutRows {
  DropoutRows(const AttentionShape& s, const QueryBlock& block)
      : on(s.row_keys), below(s.dropped_below), factor(s.kept_factor) {
    for (int64_t i = 0; on && i < block.count; ++i) {
      low[i] = static_cast<uint32_t>(s.row_keys[block.row + i]);
      high[i] = static_cast<uint32_t>(s.row_keys[block.row + i] >> 32);
    }
  }
  /// x where the weights of queries from `lane` on for `key` are kept, else 0.
  ECHELON_INLINE Floats kept(const DropoutRows& rows, int64_t key, int64_t lane, Floats x) {
    Words hash = dropout_hash(read<Words>(rows.low + lane), read<Words>(rows.high + lane), static_cast<uint32_t>(key));
    return hash >= rows.below ? x : Floats{};
  }
  /// What the weight of one query and key is multiplied by.
  float kept_factor(int64_t query, int64_t key) const {
    return !on || dropout_hash(low[query], high[query], static_cast<uint32_t>(key)) >= below ? factor : 0;
  }

  bool on;
  uint32_t below;
  float factor;
  alignas(64) uint32_t low[kBlock] = {}, high[kBlock] = {};
};

/// Two rows of a tile [rows, kBlock] of units along columns.
ECHELON_INLINE void store_columns(Single, float* tile, int64_t row, int64_t lane, Floats even, Floats odd) {
  store(tile + row * kBlock + lane, even);
  store(tile + (row + 1) * kBlock + lane, odd);
}
#if defined(__AVX512BF16__)
ECHELON_INLINE void store_columns(Pair, float* tile, int64_t row, int64_t lane, Floats even, Floats odd) {
  store(tile + row / 2 * kBlock + lane, zipped(even, odd));
}
#endif

/// A row's values at `lane` and behind it, of a tile of units along rows.
ECHELON_INLINE void store_row(Single, float* tile, int64_t row, int64_t lane, Floats first, Floats second) {
  store(tile + row * kBlock + lane, first);
  store(tile + row * kBlock + lane + kLanes, second);
}
#if defined(__AVX512BF16__)
ECHELON_INLINE void store_row(Pair, float* tile, int64_t row, int64_t lane, Floats first, Floats second) {
  store(tile + (row * kBlock + lane) / 2, joined(first, second));
}
#endif

}  // namespace
}  // namespace echelon::kernels::ECHELON_ISA_NAME
