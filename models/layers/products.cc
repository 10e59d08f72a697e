#include "models/layers/products.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include "models/layers/product_table.h"

namespace echelon {

namespace {

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

}  // namespace

at::Tensor product_transposed(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
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
