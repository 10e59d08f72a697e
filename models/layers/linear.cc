#include "models/layers/linear.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comm/autograd.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

void add_weight_gradient(const Parameter& weight, const at::Tensor& gradient, const at::Tensor& x) {
  bool fresh = false;
  at::Tensor place = weight.gradient_place(fresh);
  if (place.defined()) {
    at::addmm_out(place, place, gradient.t(), x, fresh ? 0 : 1, 1);
  } else {
    weight.add_gradient(at::mm(gradient.t(), x));
  }
}

struct LinearFunction : torch::autograd::Function<LinearFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, int64_t weight_id, int64_t bias_id) {
    context->save_for_backward({x});
    context->saved_data["weight"] = weight_id;
    context->saved_data["bias"] = bias_id;
    const auto* weight = reinterpret_cast<const Parameter*>(weight_id);
    const auto* bias = reinterpret_cast<const Parameter*>(bias_id);
    return bias ? at::addmm(bias->value(), x, weight->value().t()) : at::mm(x, weight->value().t());
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto* weight = reinterpret_cast<const Parameter*>(context->saved_data["weight"].toInt());
    const auto* bias = reinterpret_cast<const Parameter*>(context->saved_data["bias"].toInt());
    at::Tensor x = context->get_saved_variables()[0];
    add_weight_gradient(*weight, gradients[0], x);
    if (bias) bias->add_gradient(gradients[0].sum(0));
    return {context->needs_input_grad(0) ? at::mm(gradients[0], weight->value()) : at::Tensor(), {}, {}};
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
    : split_(options.split),
      weight_(&unit.add(name + ".weight", weight_layout(options.split, inputs, outputs),
                        {.standard_deviation = options.standard_deviation})) {
  if (!options.bias) return;
  Layout layout = split_ == Split::column ? Layout::sharded({outputs}, 0, "tp") : Layout::replicated({outputs});
  bias_ = &unit.add(name + ".bias", layout, {});
}

at::Tensor Linear::operator()(const at::Tensor& x, const Pass& pass) const {
  const Group& tp = pass.mesh.tp();
  if (split_ != Split::row || tp.size() == 1) return linear(x, *weight_, bias_);
  at::Tensor y = reduce_scatter_rows(linear(x, *weight_, nullptr), tp, weight_->name());
  return bias_ ? y + bias_->use() : y;
}

}  // namespace echelon
