#include <ATen/ATen.h>

#include "models/layers/attend.h"

namespace echelon {

namespace {

/// What each query may look at, [B or 1, 1, T, S]; nothing where the library's own causal order says it.
std::optional<at::Tensor> permitted(const AttentionOptions& options, const at::Tensor& q, int64_t keys, bool causal) {
  std::optional<at::Tensor> mask;
  if (options.key_mask.defined()) mask = options.key_mask.ne(0).view({-1, 1, 1, keys});
  if (causal) {
    at::Tensor all = at::ones({q.size(2), keys}, q.options().dtype(at::kBool));
    at::Tensor past = all.tril(options.past).view({1, 1, q.size(2), keys});
    mask = mask ? mask->logical_and(past) : past;
  }
  return mask;
}

}  // namespace

bool fused_takes(const at::Tensor& q, const at::Tensor& k, const AttentionOptions& options) {
  return q.is_cuda() && q.numel() > 0 && k.numel() > 0 && q.scalar_type() != at::kDouble && options.dropout <= 0;
}

at::Tensor attend_fused(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const AttentionOptions& options) {
  bool causal = options.causal && q.size(2) > 1;
  bool own_order = causal && options.past == 0 && q.size(2) == k.size(2) && !options.key_mask.defined();
  auto mask = permitted(options, q, k.size(2), causal && !own_order);
  // Only the kernel for bfloat16 without a mask shares a key head among queries.
  bool shares = q.size(1) != k.size(1), repeats = shares && (mask || q.scalar_type() == at::kFloat);
  auto heads = [&](const at::Tensor& x) { return repeats ? x.repeat_interleave(q.size(1) / x.size(1), 1) : x; };
  return at::scaled_dot_product_attention(q, heads(k), heads(v), mask, /*dropout_p=*/0, own_order, options.scale,
                                          /*enable_gqa=*/shares && !repeats);
}

}  // namespace echelon
