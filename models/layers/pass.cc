#include "models/layers/pass.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/kernels/dropout.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

std::vector<uint64_t> keys_of(const at::Tensor& keys) {
  const int64_t* data = keys.const_data_ptr<int64_t>();
  return {reinterpret_cast<const uint64_t*>(data), reinterpret_cast<const uint64_t*>(data) + keys.numel()};
}

struct DropoutFunction : torch::autograd::Function<DropoutFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const at::Tensor& keys, double rate) {
    context->saved_data["rate"] = rate;
    context->saved_data["keys"] = keys;
    return keyed_dropout(rows.contiguous(), keys_of(keys), rate);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    double rate = context->saved_data["rate"].toDouble();
    return {keyed_dropout(gradients[0].contiguous(), keys_of(context->saved_data["keys"].toTensor()), rate), {}, {}};
  }
};

}  // namespace

at::Tensor Pass::dropout(const at::Tensor& rows_held_here, double rate, std::string_view site) const {
  if (!training || rate <= 0) return rows_held_here;
  at::Tensor keys = at::empty({rows_held_here.size(0)}, at::kLong);
  int64_t* out = keys.data_ptr<int64_t>();
  for (int64_t i = 0; i < keys.numel(); ++i) {
    int64_t row = std::min(first_row() + i, rows() - 1);   // rows of padding: any key will do
    out[i] = static_cast<int64_t>(seed.with(site).with(samples[row / length]).bits(static_cast<uint64_t>(row % length)));
  }
  return DropoutFunction::apply(rows_held_here, keys, rate);
}

}  // namespace echelon
