#include "models/layers/norm.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/kernels/norm_kernel.h"
#include "models/kernels/parallel.h"
#include "models/layers/takes.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Rows whose weight gradients are summed one after the other: fixed, so that no sum depends on the number of threads.
constexpr int64_t kBlock = 32;

int64_t blocks_of(const at::Tensor& x) { return (x.size(0) + kBlock - 1) / kBlock; }

template <class T>
NormRows<T> rows_of(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, at::Tensor& statistics) {
  float* mean = statistics.data_ptr<float>();
  return {.x = static_cast<const T*>(x.const_data_ptr()),
          .weight = static_cast<const T*>(weight.const_data_ptr()),
          .bias = bias.defined() ? static_cast<const T*>(bias.const_data_ptr()) : nullptr,
          .mean = mean,
          .scale = mean + x.size(0),
          .rows = x.size(0),
          .columns = x.size(1)};
}

/// The same from row `begin` on, `count` of them.
template <class T>
NormRows<T> part(const NormRows<T>& rows, int64_t begin, int64_t count) {
  NormRows<T> some = rows;
  some.x += begin * rows.columns;
  some.mean += begin;
  some.scale += begin;
  some.rows = count;
  return some;
}

template <class T>
void forward(const NormRows<T>& rows, double epsilon, at::Tensor& y) {
  RECORD_USER_SCOPE("kernel: norm forward");
  T* to = static_cast<T*>(y.data_ptr());
  if (y.is_cuda()) return gpu::norm_forward(rows, static_cast<float>(epsilon), to);
  for_blocks(rows.rows, kBlock, [&](int64_t begin, int64_t end) {
    norm_forward(part(rows, begin, end - begin), static_cast<float>(epsilon), to + begin * rows.columns);
  });
}

/// Fills dx, the gradient behind the norm plus `residual` where that is defined, and adds each block of rows to its row
/// of `sums` [2, blocks, columns]: gradients of weight and bias.
template <class T>
void backward(const NormRows<T>& rows, const at::Tensor& dy, const at::Tensor& residual, at::Tensor& dx,
              at::Tensor& sums) {
  RECORD_USER_SCOPE("kernel: norm backward");
  const T* of_y = static_cast<const T*>(dy.const_data_ptr());
  const T* beside = residual.defined() ? static_cast<const T*>(residual.const_data_ptr()) : nullptr;
  T* of_x = static_cast<T*>(dx.data_ptr());
  float *dweight = sums[0].data_ptr<float>(), *dbias = sums[1].data_ptr<float>();
  if (dx.is_cuda()) return gpu::norm_backward(rows, of_y, beside, of_x, dweight, dbias, kBlock);
  for_blocks(rows.rows, kBlock, [&](int64_t begin, int64_t end) {
    int64_t at = begin * rows.columns, of_block = begin / kBlock * rows.columns;
    norm_backward(part(rows, begin, end - begin), of_y + at, beside ? beside + at : nullptr, of_x + at,
                  dweight + of_block, dbias + of_block);
  });
}

/// Gives the rows as they are, and their norm: in backward both gradients arrive together and are summed in one pass.
struct NormFunction : torch::autograd::Function<NormFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& given, int64_t weight_id, int64_t bias_id,
                               double epsilon) {
    at::Tensor x = given.contiguous(), y = at::empty_like(x);
    at::Tensor statistics = at::empty({2, x.size(0)}, x.options().dtype(at::kFloat));
    context->save_for_backward({x, statistics});
    context->saved_data["weight"] = weight_id;
    context->saved_data["bias"] = bias_id;
    at::Tensor weight = value_of(weight_id), bias = value_of(bias_id);
    if (x.scalar_type() == at::kFloat) {
      echelon::forward(rows_of<float>(x, weight, bias, statistics), epsilon, y);
    } else {
      echelon::forward(rows_of<Bfloat16>(x, weight, bias, statistics), epsilon, y);
    }
    context->set_materialize_grads(false);
    return {given.view_as(given), y};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    if (!gradients[1].defined()) return {gradients[0], {}, {}, {}};
    at::Tensor x = saved[0], dx = at::empty_like(x), dy = gradients[1].contiguous();
    at::Tensor residual = gradients[0].defined() ? gradients[0].contiguous() : at::Tensor();
    int64_t weight_id = context->saved_data["weight"].toInt(), bias_id = context->saved_data["bias"].toInt();
    at::Tensor weight = value_of(weight_id), bias = value_of(bias_id);
    at::Tensor sums = at::zeros({2, blocks_of(x), x.size(1)}, x.options().dtype(at::kFloat));
    if (x.scalar_type() == at::kFloat) {
      echelon::backward(rows_of<float>(x, weight, bias, saved[1]), dy, residual, dx, sums);
    } else {
      echelon::backward(rows_of<Bfloat16>(x, weight, bias, saved[1]), dy, residual, dx, sums);
    }
    add_gradient(weight_id, sums[0]);
    add_gradient(bias_id, sums[1]);
    return {dx, {}, {}, {}};
  }

  static at::Tensor value_of(int64_t parameter) {
    return parameter ? reinterpret_cast<const Parameter*>(parameter)->value() : at::Tensor();
  }
  static void add_gradient(int64_t id, const at::Tensor& of_blocks) {
    const auto* parameter = reinterpret_cast<const Parameter*>(id);
    if (parameter && parameter->trained()) parameter->add_gradient(of_blocks.sum(0));
  }
};

}  // namespace

NormLayer::NormLayer(Unit& unit, const std::string& name, const Architecture& architecture)
    : epsilon_(architecture.norm_epsilon),
      weight_(&unit.add(name + ".weight", Layout::replicated({architecture.width}), {.constant = 1})) {
  if (architecture.norm == Norm::layer) bias_ = &unit.add(name + ".bias", Layout::replicated({architecture.width}), {});
}

NormedRows NormLayer::beside(const at::Tensor& rows) const {
  if (rows.dim() != 2 || !kernels_take(rows)) return {rows, by_operators(rows)};
  auto both = NormFunction::apply(rows, reinterpret_cast<int64_t>(weight_), reinterpret_cast<int64_t>(bias_), epsilon_);
  return {both[0], both[1]};
}

at::Tensor NormLayer::by_operators(const at::Tensor& rows) const {
  if (bias_) return at::layer_norm(rows, {rows.size(-1)}, weight_->use(), bias_->use(), epsilon_);
  at::Tensor wide = rows.scalar_type() == at::kBFloat16 ? rows.to(at::kFloat) : rows;
  at::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + epsilon_);
  return weight_->use() * (wide * scale).to(rows.scalar_type());
}

}  // namespace echelon
