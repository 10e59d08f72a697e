// Attention by blocks: no matrix of all queries and keys is ever made.
#pragma once

#include <cstdint>

#include "models/kernels/head_rows.h"
#include "models/kernels/kernel.h"
#include "models/kernels/kernel_math.h"

namespace echelon {

struct AttentionShape {
  int64_t batch, heads, kv_heads, queries, keys, width;
  int64_t past = 0;     ///< query i stands at position past + i
  bool causal = false;  ///< keys behind a query's position are not looked at
  float scale = 1;
  const bool* key_mask = nullptr;      ///< [batch, keys], false: not to be looked at; null: all are
  const uint64_t* row_keys = nullptr;  ///< [batch, heads, queries], of keyed_dropout(); null: no dropout
  uint32_t dropped_below = 0;          ///< of the hash
  float kept_factor = 1;               ///< 1 / (1 - rate)
};

template <class T>
struct AttentionTensors {
  HeadRows<const T> query, key, value;
  HeadRows<T> out;
  float* log_sum;  ///< [batch, heads, queries], log2 of each row's sum of e^score; infinite: no key was permitted
};

template <class T>
struct AttentionGradients {
  HeadRows<const T> out;
  HeadRows<T> query, key, value;
};

constexpr int64_t kAttentionBlock = 64;  ///< queries, and keys, that are dealt with at a time

/// out = dropout(softmax(query keyᵀ · scale + masks)) value for parts [begin, end) of attention_forward_parts(). A row
/// that may look at no key gives the average of all values. bfloat16 is summed in float32; statistics are float32.
/// Sources: Dao et al. 2022 (FlashAttention), Milakov and Gimelshein 2018 (running softmax).
ECHELON_KERNEL(attention_forward,
               (const AttentionShape& shape, const AttentionTensors<float>& tensors, int64_t begin, int64_t end,
                float* scratch),
               (shape, tensors, begin, end, scratch))
ECHELON_KERNEL(attention_forward,
               (const AttentionShape& shape, const AttentionTensors<Bfloat16>& tensors, int64_t begin, int64_t end,
                float* scratch),
               (shape, tensors, begin, end, scratch))

/// Gradients for parts [begin, end) of attention_backward_parts(). A row that may look at no key passes its gradient on
/// as if its weights had come from equal scores.
ECHELON_KERNEL(attention_backward,
               (const AttentionShape& shape, const AttentionTensors<float>& tensors,
                const AttentionGradients<float>& gradients, int64_t begin, int64_t end, float* scratch),
               (shape, tensors, gradients, begin, end, scratch))
ECHELON_KERNEL(attention_backward,
               (const AttentionShape& shape, const AttentionTensors<Bfloat16>& tensors,
                const AttentionGradients<Bfloat16>& gradients, int64_t begin, int64_t end, float* scratch),
               (shape, tensors, gradients, begin, end, scratch))

}  // namespace echelon
