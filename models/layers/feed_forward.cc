#include "models/layers/feed_forward.h"

#include <cmath>

#include "models/layers/activation.h"
#include "models/layers/discarded.h"

namespace echelon {

namespace {

Linear::Options column(const Architecture& a) {
  return {.bias = a.feed_forward_bias, .split = Split::column, .standard_deviation = a.initializer_range};
}

Linear::Options row(const Architecture& a) {
  double scale = a.scale_residual_init ? std::sqrt(2.0 * static_cast<double>(a.layers)) : 1;
  return {.bias = a.feed_forward_bias, .split = Split::row, .standard_deviation = a.initializer_range / scale};
}

}  // namespace

FeedForward::FeedForward(Unit& unit, const std::string& name, const Architecture& a)
    : activation_(a.activation),
      gate_(a.gated ? std::optional<Linear>(std::in_place, unit, name + ".gate", a.width, a.feed_forward, column(a))
                    : std::nullopt),
      up_(unit, name + ".up", a.width, a.feed_forward, column(a)),
      down_(unit, name + ".down", a.feed_forward, a.width, row(a)) {}

std::vector<Linear*> FeedForward::linears() {
  if (!gate_) return {&up_, &down_};
  return {&*gate_, &up_, &down_};
}

at::Tensor FeedForward::activated(const at::Tensor& rows, const Pass& pass) const {
  at::Tensor gate = gate_ ? (*gate_)(rows, pass) : at::Tensor(), up = up_(rows, pass);
  auto activated = [](const at::Tensor& gate, const at::Tensor& up, Activation activation) {
    return gate.defined() ? activate_gated(gate, up, activation) : activate(up, activation);
  };
  at::Tensor result = activated(gate, up, activation_);
  if (pass.discarded) {
    pass.discarded->discard(result, [=, gate = gate.defined() ? gate.detach() : gate, up = up.detach(),
                                     activation = activation_] { return activated(gate, up, activation); });
  }
  return result;
}

at::Tensor FeedForward::operator()(const at::Tensor& rows, const Pass& pass) const {
  return down_(activated(rows, pass), pass);
}

}  // namespace echelon
