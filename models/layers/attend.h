// Attention as a function of queries, keys and values.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace echelon {

struct AttentionOptions {
  bool causal = false;
  double scale = 1;
  double dropout = 0;
  int64_t past = 0;     ///< query i stands at position past + i
  at::Tensor key_mask;  ///< [B, keys], 0: not to be looked at; undefined: all
  at::Tensor row_keys;  ///< int64 [B, H, T], bits of keyed_dropout()'s keys; undefined: no dropout
};

/// softmax(q kᵀ · scale + masks) v. q [B, H, T, d], k and v [B, K, S, d], each key head serving H / K consecutive query
/// heads; result [B, H, T, d]. A query that may look at no key gets the average of the values. float32 and bfloat16 on
/// the processor go by blocks and take any strides of rows; the result is a view of rows [B, T, H, d], and so are
/// gradients. Sources: Vaswani et al. 2017; Ainslie et al. 2023 (grouped queries).
at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& options);

/// The same by the framework's flash attention, where flash_takes() says so: bfloat16 on a GPU, without dropout or
/// padding. Its backward sums in a fixed order. Source: Dao 2023.
at::Tensor attend_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& options);
bool flash_takes(const at::Tensor& q, const at::Tensor& k, const AttentionOptions& options);

/// The same by whole matrices of weights [T, S]: for any type and device.
at::Tensor attend_whole(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& options);

/// Whether the library's fused kernels take it: on a GPU, in float32 and bfloat16, without dropout.
bool fused_takes(const at::Tensor& q, const at::Tensor& k, const AttentionOptions& options);
/// The same by them, without a matrix [T, S]; but a query that may look at no key gets zeros. Source: Dao 2023.
at::Tensor attend_fused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& options);

}  // namespace echelon
