#include "models/layers/feed_forward.h"

#include <cmath>

#include <ATen/ATen.h>

#include "cluster/base/error.h"

namespace echelon {

at::Tensor activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::gelu: return at::gelu(x);
    case Activation::gelu_tanh: return at::gelu(x, "tanh");
    case Activation::silu: return at::silu(x);
    case Activation::relu: return at::relu(x);
  }
  throw Error::internal("activation", "unknown");
}

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

at::Tensor FeedForward::operator()(const at::Tensor& rows, const Pass& pass) const {
  if (!gate_) return down_(activate(up_(rows, pass), activation_), pass);
  return down_(activate((*gate_)(rows, pass), activation_) * up_(rows, pass), pass);
}

}  // namespace echelon
