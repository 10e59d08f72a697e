#include "models/layers/pass.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/kernels/dropout.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct DropoutFunction : torch::autograd::Function<DropoutFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& rows, const at::Tensor& keys, double rate,
                            int64_t first_column) {
    context->saved_data["rate"] = rate;
    context->saved_data["keys"] = keys;
    context->saved_data["first_column"] = first_column;
    return keyed_dropout(rows.contiguous(), keys, rate, first_column);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    double rate = context->saved_data["rate"].toDouble();
    int64_t first_column = context->saved_data["first_column"].toInt();
    at::Tensor keys = context->saved_data["keys"].toTensor();
    return {keyed_dropout(gradients[0].contiguous(), keys, rate, first_column), {}, {}, {}};
  }
};

at::Tensor apply_dropout(const at::Tensor& rows, const at::Tensor& keys, double rate, int64_t first_column) {
  // Forward and backward share one copy, where rows are elsewhere.
  return DropoutFunction::apply(rows, keys.to(rows.device(), /*non_blocking=*/true), rate, first_column);
}

}  // namespace

at::Tensor Pass::dropout_keys(int64_t first, int64_t count, std::string_view site) const {
  at::Tensor keys = at::empty({count}, at::kLong);
  int64_t* out = keys.data_ptr<int64_t>();
  Seed of_site = seed.with(site);
  for (int64_t i = 0; i < count; ++i) {
    int64_t row = std::min(first + i, rows() - 1);  // rows of padding: any key will do
    out[i] = static_cast<int64_t>(of_site.with(samples[row / length]).bits(static_cast<uint64_t>(row % length)));
  }
  return keys;
}

at::Tensor Pass::dropout(const at::Tensor& rows_held_here, double rate, std::string_view site) const {
  if (!training || rate <= 0) return rows_held_here;
  return apply_dropout(rows_held_here, dropout_keys(first_row(), rows_held_here.size(0), site), rate, 0);
}

at::Tensor Pass::dropout_whole(const at::Tensor& all_rows, double rate, std::string_view site,
                               int64_t first_column) const {
  if (!training || rate <= 0) return all_rows;
  return apply_dropout(all_rows, dropout_keys(0, all_rows.size(0), site), rate, first_column);
}

}  // namespace echelon
