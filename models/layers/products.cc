#include "models/layers/products.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "models/kernels/few_rows_kernel.h"
#include "models/kernels/parallel.h"
#include "models/layers/head_tensors.h"
#include "models/layers/product_table.h"

namespace echelon {

namespace {

constexpr int64_t kFewRows = 16;

/// oneDNN's x · weightᵀ + bias; strided operands are accepted.
at::Tensor onednn_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  using Operator = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                              c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto product =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Operator>();
  static const c10::List<std::optional<at::Scalar>> none;
  return product.call(x, weight, bias.defined() ? std::optional(bias) : std::nullopt, "none", none, "");
}

bool by_onednn(ProductRole role, const at::Tensor& left, int64_t columns) {
  return left.is_cpu() &&
         product_library(role, left.scalar_type(), 2 * left.numel() * columns) == ProductLibrary::onednn;
}

template <class T>
void few_rows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, at::Tensor& y) {
  FewRows<T> product{.rows = x.size(0),
                     .depth = x.size(1),
                     .x = static_cast<const T*>(x.const_data_ptr()),
                     .x_row = x.stride(0),
                     .weight = static_cast<const T*>(weight.const_data_ptr()),
                     .bias = bias.defined() ? static_cast<const T*>(bias.const_data_ptr()) : nullptr,
                     .y = static_cast<T*>(y.mutable_data_ptr()),
                     .y_row = y.stride(0)};
  // As many outputs at a time as are worth a thread.
  int64_t block = 16 + (1 << 15) / std::max<int64_t>(1, product.depth) / 16 * 16;
  for_blocks(weight.size(0), block, [&](int64_t begin, int64_t end) { few_rows_product(product, begin, end); });
}

/// The libraries were seen to read a matrix at a third of the memory's rate for a single row (Zen 4).
bool are_few_rows(const at::Tensor& x, const at::Tensor& weight) {
  return cpu_takes(x) && x.size(0) <= kFewRows && x.stride(1) == 1 && weight.is_contiguous();
}

}  // namespace

at::Tensor product_transposed(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (are_few_rows(x, weight)) {
    at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
    x.scalar_type() == at::kFloat ? few_rows<float>(x, weight, bias, y) : few_rows<Bfloat16>(x, weight, bias, y);
    return y;
  }
  if (by_onednn(ProductRole::forward, x, weight.size(0))) return onednn_product(x, weight, bias);
  return bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
}

at::Tensor product(const at::Tensor& x, const at::Tensor& weight) {
  if (by_onednn(ProductRole::input_gradient, x, weight.size(1))) return onednn_product(x, weight.t(), {});
  return at::mm(x, weight);
}

void add_outer_product(at::Tensor& sum, bool fresh, const at::Tensor& gradient, const at::Tensor& x) {
  bool onednn = by_onednn(ProductRole::weight_gradient, gradient, x.size(1));
  if (!onednn && sum.scalar_type() == x.scalar_type()) {
    at::addmm_out(sum, sum, gradient.t(), x, fresh ? 0 : 1, 1);
    return;
  }
  at::Tensor whole = onednn ? onednn_product(gradient.t(), x.t(), {}) : at::mm(gradient.t(), x);
  fresh ? sum.copy_(whole) : sum.add_(whole);
}

}  // namespace echelon
