#include "models/layers/attention.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comm/autograd.h"
#include "models/kernels/dropout.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// Scores that must not be looked at, as a mask [1 or B, 1, T, S].
std::optional<at::Tensor> forbidden(const AttentionOptions& options, int64_t queries, int64_t keys, at::Device device) {
  at::Tensor mask;
  if (options.causal && queries > 1) {
    mask = at::ones({queries, keys}, at::TensorOptions().dtype(at::kBool).device(device)).triu(options.past + 1).view({1, 1, queries, keys});
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
                            const std::optional<at::Tensor>& mask, const at::Tensor& row_keys, double scale, double rate) {
    int64_t queries = q.size(2), keys = k.size(2);
    at::Tensor scores = at::matmul(q, k.transpose(2, 3)).mul_(scale);
    if (mask) {
      // Finite, so that a row without any permitted key gives an average instead of NaN.
      at::Tensor grouped = scores.view({q.size(0), -1, mask->size(2), keys});
      grouped.masked_fill_(*mask, scores.scalar_type() == at::kDouble ? -1e300 : -1e30);
    }
    at::Tensor weights = at::softmax(scores, -1);
    context->save_for_backward({q, k, v, weights});
    context->saved_data["scale"] = scale;
    context->saved_data["rate"] = rate;
    context->saved_data["keys"] = row_keys;
    return at::matmul(drop(weights.view({-1, keys}), row_keys, rate).view({q.size(0), q.size(1), queries, keys}), v);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    at::Tensor q = saved[0], k = saved[1], v = saved[2], weights = saved[3], out = gradients[0];
    double scale = context->saved_data["scale"].toDouble(), rate = context->saved_data["rate"].toDouble();
    at::Tensor row_keys = context->saved_data["keys"].toTensor();
    auto dropped = [&](const at::Tensor& x) {
      return drop(x.view({-1, x.size(3)}), row_keys, rate).view(x.sizes());
    };
    at::Tensor dv = at::matmul(dropped(weights).transpose(2, 3), out);
    at::Tensor dweights = dropped(at::matmul(out, v.transpose(2, 3)));
    at::Tensor dscores = at::_softmax_backward_data(dweights, weights, -1, weights.scalar_type()).mul_(scale);
    at::Tensor dq = at::matmul(dscores, k), dk = at::matmul(dscores.transpose(2, 3), q);
    return {dq, dk, dv, {}, {}, {}, {}};
  }

  static at::Tensor drop(const at::Tensor& weights, const at::Tensor& row_keys, double rate) {
    if (rate <= 0) return weights;
    const auto* keys = reinterpret_cast<const uint64_t*>(row_keys.const_data_ptr<int64_t>());
    return keyed_dropout(weights, {keys, keys + row_keys.numel()}, rate);
  }
};

struct RotateFunction : torch::autograd::Function<RotateFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
    context->saved_data["cosine"] = cosine;
    context->saved_data["sine"] = sine;
    return turn(x, cosine, sine);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {turn(gradients[0], context->saved_data["cosine"].toTensor(), -context->saved_data["sine"].toTensor()), {}, {}};
  }
  static at::Tensor turn(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine) {
    auto halves = x.chunk(2, -1);
    return at::cat({halves[0] * cosine - halves[1] * sine, halves[1] * cosine + halves[0] * sine}, -1);
  }
};

}  // namespace

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& options) {
  int64_t batch = q.size(0), queries = q.size(2), width = q.size(3), kv_heads = k.size(1);
  at::Tensor grouped = q.reshape({batch, kv_heads, -1, width});
  at::Tensor row_keys = at::empty({static_cast<int64_t>(options.row_keys.size())}, at::kLong);
  std::copy(options.row_keys.begin(), options.row_keys.end(), reinterpret_cast<uint64_t*>(row_keys.data_ptr<int64_t>()));
  at::Tensor out = AttendFunction::apply(grouped, k.contiguous(), v.contiguous(), forbidden(options, queries, k.size(2), q.device()),
                                         row_keys, options.scale, options.dropout);
  return out.view(q.sizes());
}

at::Tensor rotate(const at::Tensor& x, int64_t first_position, const Architecture& architecture) {
  int64_t half = x.size(3) / 2;
  // As in the reference implementations, angles are float32 whatever the computation; float64 stays float64.
  at::TensorOptions wide = x.options().dtype(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  at::Tensor exponents = at::arange(half, wide).mul_(2.0 / static_cast<double>(2 * half));
  at::Tensor frequencies = at::pow(architecture.rope_theta, exponents).reciprocal_().div_(architecture.rope_linear_factor);
  at::Tensor positions = at::arange(first_position, first_position + x.size(2), wide);
  at::Tensor angles = at::outer(positions, frequencies);
  return RotateFunction::apply(x, angles.cos().to(x.scalar_type()), angles.sin().to(x.scalar_type()));
}

Attention::Attention(Unit& unit, const std::string& name, const Architecture& a, int64_t layer)
    : architecture_(a), name_(name), layer_(layer),
      query_(unit, name + ".query", a.width, a.heads * a.head_width,
             {.bias = a.attention_bias, .split = Split::column, .standard_deviation = a.initializer_range}),
      key_(unit, name + ".key", a.width, a.kv_heads * a.head_width,
           {.bias = a.attention_bias, .split = Split::column, .standard_deviation = a.initializer_range}),
      value_(unit, name + ".value", a.width, a.kv_heads * a.head_width,
             {.bias = a.attention_bias, .split = Split::column, .standard_deviation = a.initializer_range}),
      output_(unit, name + ".output", a.heads * a.head_width, a.width,
              {.bias = a.attention_output_bias, .split = Split::row,
               .standard_deviation = a.initializer_range / (a.scale_residual_init ? std::sqrt(2.0 * a.layers) : 1)}) {}

at::Tensor Attention::heads(const Linear& projection, const at::Tensor& rows, const Pass& pass) const {
  at::Tensor y = projection(rows, pass);
  return y.view({pass.batch, pass.length, -1, architecture_.head_width}).transpose(1, 2);
}

at::Tensor Attention::operator()(const at::Tensor& rows, const Pass& pass) const {
  at::Tensor q = heads(query_, rows, pass), k = heads(key_, rows, pass), v = heads(value_, rows, pass);
  if (architecture_.positions == Positions::rotary) {
    q = rotate(q, pass.first_position(), architecture_);
    k = rotate(k, pass.first_position(), architecture_);
  }
  if (!pass.cache || pass.past == 0) put_extras_in_front(k, v, pass);
  if (pass.cache) remember(k, v, pass);
  AttentionOptions options{.causal = architecture_.causal,
                           .scale = 1.0 / std::sqrt(static_cast<double>(architecture_.head_width)),
                           .past = pass.first_position(),
                           .key_mask = key_mask(pass, k.size(2))};
  if (pass.training && architecture_.attention_dropout > 0) {
    options.dropout = architecture_.attention_dropout;
    options.row_keys = dropout_keys(pass, q.size(1));
  }
  at::Tensor y = attend(q, k, v, options);
  return output_(y.transpose(1, 2).reshape({pass.rows(), -1}), pass);
}

void Attention::remember(at::Tensor& keys, at::Tensor& values, const Pass& pass) const {
  at::Tensor layer = pass.cache->memory[layer_];
  int64_t end = pass.first_position() + pass.length, first = end - keys.size(2);
  layer[0].narrow(2, first, keys.size(2)).copy_(keys);
  layer[1].narrow(2, first, keys.size(2)).copy_(values);
  keys = layer[0].narrow(2, 0, end);
  values = layer[1].narrow(2, 0, end);
}

void Attention::put_extras_in_front(at::Tensor& keys, at::Tensor& values, const Pass& pass) const {
  for (const ExtraKeysValues* extra : extras_) {
    auto [k, v] = extra->keys_values();
    keys = at::cat({k.unsqueeze(0).expand({pass.batch, -1, -1, -1}), keys}, 2);
    values = at::cat({v.unsqueeze(0).expand({pass.batch, -1, -1, -1}), values}, 2);
  }
}

at::Tensor Attention::key_mask(const Pass& pass, int64_t keys) const {
  at::Tensor mask = pass.cache ? pass.cache->attention_mask : pass.attention_mask;
  if (!mask.defined()) return mask;
  mask = mask.narrow(1, 0, keys - pass.extra_keys);
  return pass.extra_keys == 0 ? mask : at::cat({at::ones({mask.size(0), pass.extra_keys}, mask.options()), mask}, 1);
}

std::vector<uint64_t> Attention::dropout_keys(const Pass& pass, int64_t local_heads) const {
  std::vector<uint64_t> keys;
  keys.reserve(pass.batch * local_heads * pass.length);
  int64_t first_head = local_heads * pass.mesh.tp().rank();
  Seed site = pass.seed.with(name_);
  for (int64_t b = 0; b < pass.batch; ++b) {
    Seed sample = site.with(pass.samples[b]);
    for (int64_t head = first_head; head < first_head + local_heads; ++head) {
      Seed of_head = sample.with(head);
      for (int64_t t = 0; t < pass.length; ++t) keys.push_back(of_head.bits(static_cast<uint64_t>(t)));
    }
  }
  return keys;
}

}  // namespace echelon
