#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/kernels/dropout.h"
#include "models/layers/attend.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// Scores that must not be looked at, as a mask [1 or B, 1, T, S].
std::optional<at::Tensor> forbidden(const AttentionOptions& options, int64_t queries, int64_t keys, at::Device device) {
  at::Tensor mask;
  if (options.causal && queries > 1) {
    at::Tensor all = at::ones({queries, keys}, at::TensorOptions().dtype(at::kBool).device(device));
    mask = all.triu(options.past + 1).view({1, 1, queries, keys});
  }
  if (options.key_mask.defined()) {
    at::Tensor padding = options.key_mask.eq(0).view({-1, 1, 1, keys});
    mask = mask.defined() ? mask.logical_or(padding) : padding;
  }
  return mask.defined() ? std::optional(mask) : std::nullopt;
}

struct AttendFunction : torch::autograd::Function<AttendFunction> {
  // q [B, K, G * T, d]: the queries of a key head one after the other, so that its product is one matrix product.
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::optional<at::Tensor>& mask, const at::Tensor& row_keys, double scale,
                            double rate) {
    int64_t queries = q.size(2), keys = k.size(2);
    at::Tensor scores = at::matmul(q, k.transpose(2, 3)).mul_(scale);
    if (mask) {
      // Finite, so that a row without any permitted key gives an average instead of NaN.
      at::Tensor by_head = scores.view({q.size(0), q.size(1) * queries / mask->size(2), mask->size(2), keys});
      by_head.masked_fill_(*mask, scores.scalar_type() == at::kDouble ? -1e300 : -1e30);
    }
    at::Tensor weights = at::softmax(scores, -1);
    context->save_for_backward({q, k, v, weights});
    context->saved_data["scale"] = scale;
    context->saved_data["rate"] = rate;
    context->saved_data["keys"] = row_keys;
    return at::matmul(drop(weights.flatten(0, 2), row_keys, rate).view({q.size(0), q.size(1), queries, keys}), v);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    at::Tensor q = saved[0], k = saved[1], v = saved[2], weights = saved[3], out = gradients[0];
    double scale = context->saved_data["scale"].toDouble(), rate = context->saved_data["rate"].toDouble();
    at::Tensor row_keys = context->saved_data["keys"].toTensor();
    auto dropped = [&](const at::Tensor& x) { return drop(x.flatten(0, 2), row_keys, rate).view(x.sizes()); };
    at::Tensor dv = at::matmul(dropped(weights).transpose(2, 3), out);
    at::Tensor dweights = dropped(at::matmul(out, v.transpose(2, 3)));
    at::Tensor dscores = at::_softmax_backward_data(dweights, weights, -1, weights.scalar_type()).mul_(scale);
    at::Tensor dq = at::matmul(dscores, k), dk = at::matmul(dscores.transpose(2, 3), q);
    return {dq, dk, dv, {}, {}, {}, {}};
  }

  static at::Tensor drop(const at::Tensor& weights, const at::Tensor& row_keys, double rate) {
    if (rate <= 0) return weights;
    return keyed_dropout(weights, row_keys.flatten(), rate);
  }
};

}  // namespace

at::Tensor attend_whole(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const AttentionOptions& options) {
  int64_t batch = q.size(0), queries = q.size(2), width = q.size(3), kv_heads = k.size(1);
  at::Tensor grouped = q.reshape({batch, kv_heads, q.size(1) / kv_heads * queries, width});
  auto mask = forbidden(options, queries, k.size(2), q.device());
  at::Tensor row_keys = options.row_keys.defined() ? options.row_keys : at::empty({0}, at::kLong);
  at::Tensor out =
      AttendFunction::apply(grouped, k.contiguous(), v.contiguous(), mask, row_keys, options.scale, options.dropout);
  return out.view(q.sizes());
}

}  // namespace echelon
