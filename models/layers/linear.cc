#include "models/layers/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comm/autograd.h"
#include "models/layers/products.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

void add_weight_gradient(const Parameter& weight, const at::Tensor& gradient, const at::Tensor& x) {
  bool fresh = false;
  at::Tensor place = weight.gradient_place(fresh);
  add_outer_product(place, fresh, gradient, x);
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, int64_t weight_id, int64_t bias_id) {
    const auto* weight = reinterpret_cast<const Parameter*>(weight_id);
    const auto* bias = reinterpret_cast<const Parameter*>(bias_id);
    if (weight->trained()) context->save_for_backward({x});
    context->saved_data["weight"] = weight_id;
    context->saved_data["bias"] = bias_id;
    return product_transposed(x, weight->value(), bias ? bias->value() : at::Tensor());
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto* weight = reinterpret_cast<const Parameter*>(context->saved_data["weight"].toInt());
    const auto* bias = reinterpret_cast<const Parameter*>(context->saved_data["bias"].toInt());
    if (weight->trained()) add_weight_gradient(*weight, gradients[0], context->get_saved_variables()[0]);
    if (bias && bias->trained()) bias->add_gradient(gradients[0].sum(0));
    return {context->needs_input_grad(0) ? product(gradients[0], weight->value()) : at::Tensor(), {}, {}};
  }
};

Layout weight_layout(Split split, int64_t inputs, int64_t outputs) {
  if (split == Split::none) return Layout::replicated({outputs, inputs});
  return Layout::sharded({outputs, inputs}, split == Split::column ? 0 : 1, "tp");
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const Parameter& weight, const Parameter* bias) {
  return LinearFunction::apply(x, reinterpret_cast<int64_t>(&weight), reinterpret_cast<int64_t>(bias));
}

Linear::Linear(Unit& unit, const std::string& name, int64_t inputs, int64_t outputs, const Options& options)
    : name_(name),
      unit_(unit),
      split_(options.split),
      weight_(&unit.add(name + ".weight", weight_layout(options.split, inputs, outputs),
                        {.standard_deviation = options.standard_deviation})) {
  if (!options.bias) return;
  Layout layout = split_ == Split::column ? Layout::sharded({outputs}, 0, "tp") : Layout::replicated({outputs});
  bias_ = &unit.add(name + ".bias", layout, {});
}

at::Tensor Linear::operator()(const at::Tensor& x, const Pass& pass) const {
  const Group& tp = pass.mesh.tp();
  bool sums = split_ == Split::row && tp.size() > 1;
  if (reparams_.empty() && !sums) return linear(x, *weight_, bias_);
  at::Tensor in = x;
  for (const Reparam* reparam : reparams_) in = reparam->input(in, pass);
  at::Tensor y = linear(in, *weight_, nullptr);
  for (const Reparam* reparam : reparams_) y = reparam->product(in, y, pass);
  if (sums) y = reduce_scatter_rows(y, tp, weight_->name());
  if (bias_) y = y + bias_->use();
  for (const Reparam* reparam : reparams_) y = reparam->output(y, pass);
  return y;
}

}  // namespace echelon
