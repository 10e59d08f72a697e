#include "models/kernels/attention_block.h"

namespace echelon::kernels::ECHELON_ISA_NAME {
namespace {

/// One block of queries against all keys, block by block. Tiles hold the transposed matrices: a column for each query.
template <class T>
class Forward {
  using Dot = typename DotOf<T>::Type;

 public:
  Forward(const AttentionShape& shape, const AttentionTensors<T>& tensors, const QueryBlock& block, float* scratch)
      : s_(shape),
        t_(tensors),
        block_(block),
        kv_head_(block.head / (s_.heads / s_.kv_heads)),
        vectors_(rounded_up(block.count, kLanes) / kLanes),
        scratch_(shape, scratch),
        dropout_(shape, block) {}

  void run() {
    if (block_.count == 1) return run_one();
    pack_along_rows(Dot{}, rows_of(t_.query, block_.batch, block_.head, block_.first, block_.count, s_.width),
                    scratch_.rows, scratch_.row, kBlock);
    transpose(scratch_.rows, scratch_.row, kBlock, scratch_.row, scratch_.queries, kBlock);
    zero_rows(scratch_.out, kBlock, 0, scratch_.row);
    for (int64_t lane = 0; lane < kBlock; lane += kLanes) store(highest_ + lane, splat(-1e30f));
    for (int64_t key = 0; key < block_.keys_end; key += kBlock) {
      int64_t count = smaller(kBlock, block_.keys_end - key);
      if (any_permitted(s_, block_.batch, key, count)) look_at(key, count);
    }
    finish();
  }

 private:
  /// A single query, as in generation, would leave most lanes idle: here vectors lie along its elements.
  void run_one() {
    zero_rows(scratch_.out, scratch_.row, 0, 1);
    const T* query = row_of(t_.query, block_.batch, block_.head, block_.first);
    for (int64_t i = 0; i < s_.width; i += kLanes) store(scratch_.queries + i, load_up_to(query, i, s_.width));
    highest_[0] = -1e30f;
    for (int64_t key = 0; key < block_.keys_end; key += kBlock) {
      int64_t count = smaller(kBlock, block_.keys_end - key);
      if (any_permitted(s_, block_.batch, key, count)) look_at_with_one(key, count);
    }
    unpack(scratch_.out, scratch_.row, s_.kept_factor / sum_[0],
           rows_of(t_.out, block_.batch, block_.head, block_.first, 1, s_.width));
    record(0);
  }

  void look_at_with_one(int64_t key, int64_t count) {
    float *weights = scratch_.weights, before = highest_[0];
    for (int64_t n = 0; n < kBlock; ++n) {
      bool seen = n < count && is_permitted(s_, block_.batch, key + n);
      weights[n] = seen ? score(row_of(t_.key, block_.batch, kv_head_, key + n)) : -__builtin_inff();
      highest_[0] = weights[n] > highest_[0] ? weights[n] : highest_[0];
    }
    float shrink = power_of_two(splat(before - highest_[0]))[0];
    Floats sum = {};
    for (int64_t lane = 0; lane < kBlock; lane += kLanes) {
      Floats weight = power_of_two(load(weights + lane) - splat(highest_[0]));
      sum += weight;
      store(weights + lane, weight);
    }
    sum_[0] = sum_[0] * shrink + total(sum);
    for (int64_t n = 0; dropout_.on && n < count; ++n)
      weights[n] = dropout_.kept_factor(0, key + n) > 0 ? weights[n] : 0;
    for (int64_t i = 0; i < s_.width; i += kLanes) {
      Floats even = load(scratch_.out + i) * splat(shrink), odd = {};
      for (int64_t n = 0; n < count; n += 2) {
        even =
            fused(splat(weights[n]), load_up_to(row_of(t_.value, block_.batch, kv_head_, key + n), i, s_.width), even);
        if (n + 1 == count) break;
        odd = fused(splat(weights[n + 1]),
                    load_up_to(row_of(t_.value, block_.batch, kv_head_, key + n + 1), i, s_.width), odd);
      }
      store(scratch_.out + i, even + odd);
    }
  }

  float score(const T* key) {
    Floats sum = {};
    for (int64_t i = 0; i < s_.width; i += kLanes)
      sum = fused(load(scratch_.queries + i), load_up_to(key, i, s_.width), sum);
    return total(sum) * (s_.scale * kLog2OfE);
  }

  void look_at(int64_t key, int64_t count) {
    int64_t rows = rounded_up(count, 2);
    pack_along_rows(Dot{}, rows_of(t_.key, block_.batch, kv_head_, key, count, s_.width), scratch_.rows, scratch_.row,
                    rows);
    Product scores{.rows = rows,
                   .vectors = vectors_,
                   .steps = rounded_up(s_.width, Dot::kElements) / Dot::kElements,
                   .left = scratch_.rows,
                   .left_row = scratch_.row,
                   .left_step = 1,
                   .right = scratch_.queries,
                   .right_step = kBlock,
                   .out = scratch_.scores,
                   .out_row = kBlock,
                   .into = Into::set,
                   .factor = s_.scale * kLog2OfE};
    multiply_keys_by_queries<Dot>(scores, hidden_queries(s_, block_, key));
    forbid(s_, block_, key, count, rows, scratch_.scores);
    for (int64_t lane = 0; lane < vectors_ * kLanes; lane += kLanes) weigh(key, rows, lane);
    Rows<const T> values = rows_of(t_.value, block_.batch, kv_head_, key, count, s_.width);
    if (Dot::kElements == 1) pack_along_rows(Dot{}, values, scratch_.rows, scratch_.row, rows);
    const float* columns = pack_along_columns(Dot{}, values, scratch_.rows, scratch_.columns, scratch_.row, rows);
    Product weighted{.rows = s_.width,
                     .vectors = vectors_,
                     .steps = rows / Dot::kElements,
                     .left = columns,
                     .left_row = 1,
                     .left_step = scratch_.row,
                     .right = scratch_.weights,
                     .right_step = kBlock,
                     .out = scratch_.out,
                     .out_row = kBlock,
                     .into = Into::rescale,
                     .factors = shrink_};
    multiply_weights<Dot>(weighted, hidden_queries(s_, block_, key));
  }

  /// Scores to weights relative to the highest score so far, and what that makes of the sums so far.
  void weigh(int64_t key, int64_t rows, int64_t lane) {
    const float* scores = scratch_.scores + lane;
    Floats before = load(highest_ + lane), now = before;
    for (int64_t n = 0; n < rows; ++n) now = larger(load(scores + n * kBlock), now);
    Floats shrink = power_of_two(before - now), sum = load(sum_ + lane) * shrink;
    for (int64_t n = 0; n < rows; n += 2) {
      Floats even = power_of_two(load(scores + n * kBlock) - now),
             odd = power_of_two(load(scores + (n + 1) * kBlock) - now);
      sum += even + odd;
      if (dropout_.on) {
        even = DropoutRows::kept(dropout_, key + n, lane, even);
        odd = DropoutRows::kept(dropout_, key + n + 1, lane, odd);
      }
      store_columns(Dot{}, scratch_.weights, n, lane, even, odd);
    }
    store(highest_ + lane, now);
    store(shrink_ + lane, shrink);
    store(sum_ + lane, sum);
  }

  void finish() {
    for (int64_t lane = 0; lane < vectors_ * kLanes; lane += kLanes) {
      Floats factor = splat(s_.kept_factor) / load(sum_ + lane);
      for (int64_t i = 0; i < s_.width; ++i) {
        float* at = scratch_.out + i * kBlock + lane;
        store(at, load(at) * factor);
      }
    }
    transpose(scratch_.out, kBlock, scratch_.row, kBlock, scratch_.rows, scratch_.row);
    unpack(scratch_.rows, scratch_.row, 1,
           rows_of(t_.out, block_.batch, block_.head, block_.first, block_.count, s_.width));
    for (int64_t i = 0; i < block_.count; ++i) record(i);
  }

  void record(int64_t query) {
    bool dead = sum_[query] == 0;
    t_.log_sum[block_.row + query] = dead ? __builtin_inff() : highest_[query] + __builtin_log2f(sum_[query]);
    if (dead) average(query);
  }

  void average(int64_t query) {
    zero_rows(scratch_.rows, scratch_.row, 0, 1);
    for (int64_t key = 0; key < s_.keys; ++key) {
      float weight = dropout_.kept_factor(query, key) / static_cast<float>(s_.keys);
      const T* value = row_of(t_.value, block_.batch, kv_head_, key);
      for (int64_t i = 0; i < s_.width; ++i) scratch_.rows[i] += weight * widen(value[i]);
    }
    unpack(scratch_.rows, scratch_.row, 1,
           rows_of(t_.out, block_.batch, block_.head, block_.first + query, 1, s_.width));
  }

  const AttentionShape& s_;
  const AttentionTensors<T>& t_;
  QueryBlock block_;
  int64_t kv_head_, vectors_;
  AttentionForwardScratch scratch_;
  DropoutRows dropout_;
  // One a query: the highest score so far, the sum of weights relative to it, what the last block shrank that by.
  alignas(64) float highest_[kBlock], sum_[kBlock] = {}, shrink_[kBlock];
};

template <class T>
void forward(const AttentionShape& s, const AttentionTensors<T>& tensors, int64_t begin, int64_t end, float* scratch) {
  int64_t blocks = (s.queries + kBlock - 1) / kBlock;
  for (int64_t part = begin; part < end; ++part) {
    int64_t head = part / blocks;
    Forward<T>(s, tensors, query_block(s, head / s.heads, head % s.heads, part % blocks * kBlock), scratch).run();
  }
}

}  // namespace

void attention_forward(const AttentionShape& shape, const AttentionTensors<float>& tensors, int64_t begin, int64_t end,
                       float* scratch) {
  forward(shape, tensors, begin, end, scratch);
}
void attention_forward(const AttentionShape& shape, const AttentionTensors<Bfloat16>& tensors, int64_t begin,
                       int64_t end, float* scratch) {
  forward(shape, tensors, begin, end, scratch);
}

}  // namespace echelon::kernels::ECHELON_ISA_NAME
