#include "models/layers/attention.h"

#include <cmath>

#include <ATen/ATen.h>

#include "models/layers/attend.h"
#include "models/layers/rotary.h"

namespace echelon {

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
    q = rotated(q, pass);
    k = rotated(k, pass);
  }
  if (!pass.cache || pass.past == 0) put_extras_in_front(k, v, pass);
  if (pass.cache) remember(k, v, pass);
  AttentionOptions options{.causal = architecture_.causal,
                           .scale = 1.0 / std::sqrt(static_cast<double>(architecture_.head_width)),
                           .past = pass.first_column(),
                           .key_mask = key_mask(pass, k.size(2))};
  if (pass.training && architecture_.attention_dropout > 0) {
    options.dropout = architecture_.attention_dropout;
    options.row_keys = dropout_keys(pass, q.size(1));
  }
  at::Tensor y = attend(q, k, v, options);
  return output_(y.transpose(1, 2).reshape({pass.rows(), -1}), pass);
}

at::Tensor Attention::rotated(const at::Tensor& x, const Pass& pass) const {
  if (!pass.cache || pass.cache->begins.empty()) return rotate(x, pass.first_column(), architecture_);
  std::vector<at::Tensor> sequences;
  for (int64_t b = 0; b < pass.batch; ++b)
    sequences.push_back(rotate(x.narrow(0, b, 1), pass.first_column() - pass.cache->begins[b], architecture_));
  return at::cat(sequences);
}

void Attention::remember(at::Tensor& keys, at::Tensor& values, const Pass& pass) const {
  at::Tensor layer = pass.cache->memory[layer_];
  int64_t end = pass.first_column() + pass.length, first = end - keys.size(2);
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
  if (pass.cache) return mask.narrow(1, 0, keys);
  mask = mask.narrow(1, 0, keys - pass.extra_keys);
  return pass.extra_keys == 0 ? mask : at::cat({at::ones({mask.size(0), pass.extra_keys}, mask.options()), mask}, 1);
}

at::Tensor Attention::dropout_keys(const Pass& pass, int64_t local_heads) const {
  at::Tensor keys = at::empty({pass.batch, local_heads, pass.length}, at::kLong);
  int64_t* next = keys.mutable_data_ptr<int64_t>();
  int64_t first_head = local_heads * pass.mesh.tp().rank();
  Seed site = pass.seed.with(name_);
  for (int64_t b = 0; b < pass.batch; ++b) {
    Seed sample = site.with(pass.samples[b]);
    for (int64_t head = first_head; head < first_head + local_heads; ++head) {
      Seed of_head = sample.with(head);
      for (int64_t t = 0; t < pass.length; ++t) *next++ = static_cast<int64_t>(of_head.bits(static_cast<uint64_t>(t)));
    }
  }
  return keys;
}

}  // namespace echelon
