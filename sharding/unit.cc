#include "sharding/unit.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "cluster/base/log.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

Unit* unit_of(AutogradContext* context) { return reinterpret_cast<Unit*>(context->saved_data["unit"].toInt()); }

/// Identity; its backward is the last of the Unit. Without an input of its own it hands on the anchor.
struct Enter : torch::autograd::Function<Enter> {
  static at::Tensor forward(AutogradContext* context, const std::optional<at::Tensor>& input, const at::Tensor& anchor,
                            int64_t unit) {
    context->saved_data["unit"] = unit;
    context->saved_data["has_input"] = input.has_value();
    return input ? input->view_as(*input) : at::zeros({}, anchor.options());
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    unit_of(context)->after_backward();
    bool has_input = context->saved_data["has_input"].toBool();
    return {has_input ? gradients[0] : at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

/// Identity; its backward is the first of the Unit.
struct Leave : torch::autograd::Function<Leave> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& output, int64_t unit) {
    context->saved_data["unit"] = unit;
    return output.view_as(output);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    unit_of(context)->before_backward();
    return {gradients[0], at::Tensor()};
  }
};

using Body = std::function<at::Tensor(const at::Tensor&)>;

/// Runs the body without a tape, and again with one of its own in backward.
struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& anchor, int64_t unit,
                            const Body& body) {
    context->saved_data["unit"] = unit;
    context->saved_data["body"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(body));
    context->save_for_backward({input});
    unit_of(context)->begin_forward();
    at::Tensor output = body(input);
    unit_of(context)->end_forward();
    return output;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    Unit* unit = unit_of(context);
    at::Tensor input = context->get_saved_variables()[0].detach().requires_grad_(true);
    unit->before_backward();
    {
      at::AutoGradMode with_gradients(true);
      auto holder = context->saved_data["body"].toCapsule();
      at::Tensor output = static_cast<Holder&>(*holder).body(input);
      torch::autograd::backward({output}, {gradients[0]});
    }
    unit->after_backward();
    return {input.grad(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
  struct Holder : torch::CustomClassHolder {
    explicit Holder(Body body) : body(std::move(body)) {}
    Body body;
  };
};

}  // namespace

Unit::Unit(std::string name, Zero& zero)
    : name_(std::move(name)),
      position_(zero.units++),
      trained_(name_, zero, /*trained=*/true),
      frozen_(name_ + ".frozen", zero, /*trained=*/false) {}
Unit::~Unit() { zero().foresight.forget(*this); }

Parameter& Unit::add(std::string name, Layout layout, Init init) {
  Parameter& parameter =
      *parameters_.emplace_back(std::make_unique<Parameter>(std::move(name), std::move(layout), init, zero().mesh));
  trained_.add(parameter);
  return parameter;
}

void Unit::freeze(Parameter& parameter) {
  if (!parameter.trained()) return;
  trained_.remove(parameter);
  frozen_.add(parameter);
}

void Unit::allocate() {
  trained_.allocate();
  frozen_.allocate();
  at::Device device = zero().mesh.dp().device();
  anchor_ = at::zeros({}, at::TensorOptions().dtype(zero().options.values).device(device)).requires_grad_(true);
}

bool Unit::learns_from(const at::Tensor& input) const {
  return at::GradMode::is_enabled() && (!trained_.empty() || (input.defined() && input.requires_grad()));
}

at::Tensor Unit::enter(const at::Tensor& input) {
  begin_forward();
  if (!learns_from(input)) return input.defined() ? input : at::zeros({}, anchor_.options());
  return Enter::apply(input.defined() ? std::optional(input) : std::nullopt, anchor_, reinterpret_cast<int64_t>(this));
}

at::Tensor Unit::leave(const at::Tensor& output) {
  end_forward();
  return output.requires_grad() ? Leave::apply(output, reinterpret_cast<int64_t>(this)) : output;
}

at::Tensor Unit::recompute(const Body& body, const at::Tensor& input) {
  if (!learns_from(input)) return leave(body(enter(input)));
  return Recompute::apply(input, anchor_, reinterpret_cast<int64_t>(this), body);
}

void Unit::gather() {
  if (gathered_times_++ > 0) return;
  trained_.gather();
  frozen_.gather();
}

void Unit::fetch() {
  trained_.fetch();
  frozen_.fetch();
}

void Unit::gather_in(Direction direction) {
  bool again = gathered_times_ > 0;
  gather();
  Unit* next = again ? nullptr : zero().foresight.after(*this, direction);
  if (next && zero().options.overlap) next->fetch();
}

void Unit::release() {
  EC_CHECK(gathered_times_ > 0, "unit {} is released without having been gathered", name_);
  if (--gathered_times_ > 0) return;
  trained_.release();
  frozen_.release();
}

void Unit::begin_span(const char* pass) {
  span_ = std::make_unique<at::RecordFunction>(at::RecordScope::USER_SCOPE);
  if (span_->isActive()) span_->before(fmt::format("unit: {} {}", name_, pass));
}

void Unit::begin_forward() {
  begin_span("forward");
  gather_in(Direction::forward);
}

void Unit::end_forward() {
  release();
  span_.reset();
}

void Unit::before_backward() {
  begin_span("backward");
  gather_in(Direction::backward);
  trained_.begin_gradients();
}

void Unit::after_backward() {
  release();
  trained_.end_gradients();
  span_.reset();
}

}  // namespace echelon
