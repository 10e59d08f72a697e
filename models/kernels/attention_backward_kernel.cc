#include "models/kernels/attention_block.h"

namespace echelon::kernels::ECHELON_ISA_NAME {
namespace {

/// A key head with all queries that look at it, weights recomputed from the rows' sums. Tiles hold the transposed
/// matrices of scores: a row for each key, a column for each query.
template <class T>
class Backward {
  using Dot = typename DotOf<T>::Type;

 public:
  Backward(const AttentionShape& shape, const AttentionTensors<T>& tensors, const AttentionGradients<T>& gradients,
           int64_t batch, int64_t kv_head, float* scratch)
      : s_(shape),
        t_(tensors),
        g_(gradients),
        batch_(batch),
        kv_head_(kv_head),
        scratch_(shape, scratch),
        row_(scratch_.row) {}

  void run() {
    Rows<const T> keys = rows_of(t_.key, batch_, kv_head_, 0, s_.keys, s_.width);
    pack_along_rows(Dot{}, keys, scratch_.key_rows, row_, scratch_.keys);
    pack_along_rows(Dot{}, rows_of(t_.value, batch_, kv_head_, 0, s_.keys, s_.width), scratch_.value_rows, row_,
                    scratch_.keys);
    key_columns_ = pack_along_columns(Dot{}, keys, scratch_.key_rows, scratch_.key_columns, row_, scratch_.keys);
    zero_rows(scratch_.key_gradient, row_, 0, scratch_.keys);
    zero_rows(scratch_.value_gradient, row_, 0, scratch_.keys);
    int64_t group = s_.heads / s_.kv_heads;
    for (int64_t head = kv_head_ * group; head < (kv_head_ + 1) * group; ++head) {
      for (int64_t first = 0; first < s_.queries; first += kBlock) answer(query_block(s_, batch_, head, first));
    }
    unpack(scratch_.key_gradient, row_, s_.scale, rows_of(g_.key, batch_, kv_head_, 0, s_.keys, s_.width));
    unpack(scratch_.value_gradient, row_, 1, rows_of(g_.value, batch_, kv_head_, 0, s_.keys, s_.width));
  }

 private:
  /// What a block of queries needs, in the forms that the products take.
  struct Queries {
    Queries(const AttentionShape& s, const QueryBlock& of)
        : block(of),
          dropout(s, of),
          vectors(rounded_up(of.count, 2 * kLanes) / kLanes),
          steps(rounded_up(of.count, Dot::kElements) / Dot::kElements) {}

    const QueryBlock& block;
    DropoutRows dropout;
    int64_t vectors, steps;
    const float *query_columns, *out_columns;
    // One a query: sum over keys of weight times the weight's gradient, and the saved log_sum.
    alignas(64) float means[kBlock] = {}, log_sums[kBlock];
  };

  void answer(const QueryBlock& block) {
    Queries q(s_, block);
    q.query_columns = pack(rows_of(t_.query, batch_, block.head, block.first, block.count, s_.width), scratch_.rows,
                           scratch_.queries, scratch_.query_columns);
    q.out_columns = pack(rows_of(g_.out, batch_, block.head, block.first, block.count, s_.width), scratch_.out_rows,
                         scratch_.outs, scratch_.out_columns);
    for (int64_t i = 0; i < kBlock; ++i) q.log_sums[i] = i < block.count ? t_.log_sum[block.row + i] : __builtin_inff();
    zero_rows(scratch_.query_gradient, row_, 0, kBlock);
    for (int64_t i = 0; i < block.count; ++i) {
      q.means[i] = product(row_of(g_.out, batch_, block.head, block.first + i),
                           row_of(t_.out, batch_, block.head, block.first + i));
      if (q.log_sums[i] == __builtin_inff()) share_out(q, i);
    }
    for (int64_t key = 0; key < block.keys_end; key += kBlock) {
      int64_t count = smaller(kBlock, block.keys_end - key);
      if (any_permitted(s_, batch_, key, count)) look_at(q, key, count);
    }
    unpack(scratch_.query_gradient, row_, s_.scale,
           rows_of(g_.query, batch_, block.head, block.first, block.count, s_.width));
  }

  const float* pack(const Rows<const T>& rows, float* along_rows, float* transposed, float* columns) {
    pack_along_rows(Dot{}, rows, along_rows, row_, kBlock);
    transpose(along_rows, row_, kBlock, row_, transposed, kBlock);
    return pack_along_columns(Dot{}, rows, along_rows, columns, row_, kBlock);
  }

  float product(const T* a, const T* b) {
    Floats sum = {};
    for (int64_t i = 0; i < s_.width; i += kLanes)
      sum = fused(load_up_to(a, i, s_.width), load_up_to(b, i, s_.width), sum);
    return total(sum);
  }

  void look_at(const Queries& q, int64_t key, int64_t count) {
    int64_t rows = rounded_up(count, 2);
    Product scores{.rows = rows,
                   .vectors = q.vectors,
                   .steps = rounded_up(s_.width, Dot::kElements) / Dot::kElements,
                   .left = scratch_.key_rows + key * row_,
                   .left_row = row_,
                   .left_step = 1,
                   .right = scratch_.queries,
                   .right_step = kBlock,
                   .out = scratch_.scores,
                   .out_row = kBlock,
                   .into = Into::set,
                   .factor = s_.scale * kLog2OfE};
    int64_t hidden = hidden_queries(s_, q.block, key);
    multiply_keys_by_queries<Dot>(scores, hidden);
    Product weights = scores;  // gradients of weights
    weights.left = scratch_.value_rows + key * row_;
    weights.right = scratch_.outs;
    weights.out = scratch_.gradients;
    weights.factor = q.dropout.factor;
    multiply_keys_by_queries<Dot>(weights, hidden);
    forbid(s_, q.block, key, count, rows, scratch_.scores, scratch_.gradients);
    for (int64_t n = 0; n < rows; n += 2) {
      for (int64_t lane = 0; lane < q.vectors * kLanes; lane += 2 * kLanes) differentiate(q, key + n, n, lane);
    }
    add(q, key, rows);
  }

  /// Scores and gradients of weights to weights and gradients of scores: two keys, two vectors of queries.
  void differentiate(const Queries& q, int64_t key, int64_t n, int64_t lane) {
    Floats weights[2][2], gradients[2][2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        int64_t at = lane + j * kLanes, place = (n + i) * kBlock + at;
        Floats weight = power_of_two(load(scratch_.scores + place) - load(q.log_sums + at)), dropped = weight;
        Floats gradient = load(scratch_.gradients + place);
        if (q.dropout.on) {
          dropped = DropoutRows::kept(q.dropout, key + i, at, weight * splat(q.dropout.factor));
          gradient = DropoutRows::kept(q.dropout, key + i, at, gradient);
        }
        weights[i][j] = dropped;
        gradients[i][j] = weight * (gradient - load(q.means + at));
      }
      store_row(Dot{}, scratch_.weight_rows, n + i, lane, weights[i][0], weights[i][1]);
      store_row(Dot{}, scratch_.score_rows, n + i, lane, gradients[i][0], gradients[i][1]);
    }
    if (Dot::kElements == 1) return;
    store_columns(Dot{}, scratch_.score_columns, n, lane, gradients[0][0], gradients[1][0]);
    store_columns(Dot{}, scratch_.score_columns, n, lane + kLanes, gradients[0][1], gradients[1][1]);
  }

  void add(const Queries& q, int64_t key, int64_t rows) {
    Product values{.rows = rows,
                   .vectors = rounded_up(s_.width, kLanes) / kLanes,
                   .steps = q.steps,
                   .left = scratch_.weight_rows,
                   .left_row = kBlock / Dot::kElements,
                   .left_step = 1,
                   .right = q.out_columns,
                   .right_step = row_,
                   .out = scratch_.value_gradient + key * row_,
                   .out_row = row_,
                   .into = Into::add};
    int64_t hidden = hidden_queries(s_, q.block, key);
    multiply_over_queries<Dot>(values, hidden);
    Product keys = values;
    keys.left = scratch_.score_rows;
    keys.right = q.query_columns;
    keys.out = scratch_.key_gradient + key * row_;
    multiply_over_queries<Dot>(keys, hidden);
    Product queries = values;
    queries.rows = q.block.count;
    queries.steps = rows / Dot::kElements;
    queries.left = Dot::kElements == 1 ? scratch_.score_rows : scratch_.score_columns;
    queries.left_row = 1;
    queries.left_step = kBlock;
    queries.right = key_columns_ + key / Dot::kElements * row_;
    queries.out = scratch_.query_gradient;
    multiply_over_keys<Dot>(queries, hidden);
  }

  /// A query that may look at no key: its weights are all the same.
  void share_out(const Queries& q, int64_t query) {
    const T* out = row_of(g_.out, batch_, q.block.head, q.block.first + query);
    float weight = 1 / static_cast<float>(s_.keys);
    for (int64_t key = 0; key < s_.keys; ++key) {
      float kept = q.dropout.kept_factor(query, key);
      float score = weight * (kept * product(out, row_of(t_.value, batch_, kv_head_, key)) - q.means[query]);
      add_row(weight * kept, out, scratch_.value_gradient + key * row_);
      add_row(score, row_of(t_.query, batch_, q.block.head, q.block.first + query), scratch_.key_gradient + key * row_);
      add_row(score, row_of(t_.key, batch_, kv_head_, key), scratch_.query_gradient + query * row_);
    }
  }

  void add_row(float factor, const T* row, float* to) {
    for (int64_t i = 0; i < s_.width; ++i) to[i] += factor * widen(row[i]);
  }

  const AttentionShape& s_;
  const AttentionTensors<T>& t_;
  const AttentionGradients<T>& g_;
  int64_t batch_, kv_head_;
  AttentionBackwardScratch scratch_;
  int64_t row_;
  const float* key_columns_ = nullptr;
};

template <class T>
void backward(const AttentionShape& s, const AttentionTensors<T>& tensors, const AttentionGradients<T>& gradients,
              int64_t begin, int64_t end, float* scratch) {
  for (int64_t part = begin; part < end; ++part) {
    Backward<T>(s, tensors, gradients, part / s.kv_heads, part % s.kv_heads, scratch).run();
  }
}

}  // namespace

void attention_backward(const AttentionShape& shape, const AttentionTensors<float>& tensors,
                        const AttentionGradients<float>& gradients, int64_t begin, int64_t end, float* scratch) {
  backward(shape, tensors, gradients, begin, end, scratch);
}
void attention_backward(const AttentionShape& shape, const AttentionTensors<Bfloat16>& tensors,
                        const AttentionGradients<Bfloat16>& gradients, int64_t begin, int64_t end, float* scratch) {
  backward(shape, tensors, gradients, begin, end, scratch);
}

}  // namespace echelon::kernels::ECHELON_ISA_NAME
