#include "models/layers/low_rank.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "models/layers/embedding.h"

namespace echelon {

namespace {

/// y + scale · low · Bᵀ, in y's own memory.
at::Tensor add_product(at::Tensor y, const at::Tensor& low, const Parameter& b, double scale) {
  return y.addmm_(low, b.use().t(), 1, scale);
}

}  // namespace

at::Tensor LowRankLinear::product(const at::Tensor& x, const at::Tensor& y, const Pass& pass) const {
  int64_t first_column = linear_.split() == Split::row ? linear_.weight().local().offsets[1] : 0;
  at::Tensor in = pass.dropout_whole(x, dropout_, factors_.a->name(), first_column);
  at::Tensor low = linear(in, *factors_.a, nullptr);
  at::Tensor start = without_start(x, y);
  if (!factors_.magnitude) return add_product(start, low, *factors_.b, scale_);
  at::Tensor length = factors_.magnitude->use() / row_lengths(pass);
  // Dropout falls on the update and on what rescales the base, not on the base itself.
  at::Tensor base = in.is_same(x) ? start : without_start(in, linear(in, linear_.weight(), nullptr));
  return start + (length - 1) * base + length * scale_ * at::mm(low, factors_.b->use().t());
}

at::Tensor LowRankLinear::without_start(const at::Tensor& x, const at::Tensor& y) const {
  if (!factors_.first_a) return y;
  return add_product(y, linear(x, *factors_.first_a, nullptr), *factors_.first_b, -scale_);
}

at::Tensor LowRankLinear::row_lengths(const Pass& pass) const {
  at::NoGradGuard no_gradients;
  at::Tensor weight = linear_.weight().value();
  at::ScalarType type = weight.scalar_type() == at::kBFloat16 ? at::kFloat : weight.scalar_type();
  auto wide = [&](const Parameter* parameter) { return parameter->value().to(type); };
  at::Tensor sum = at::addmm(weight.to(type), wide(factors_.b), wide(factors_.a), 1, scale_);
  if (factors_.first_a) sum.addmm_(wide(factors_.first_b), wide(factors_.first_a), 1, -scale_);
  at::Tensor squares = sum.square().sum(1);
  if (linear_.split() == Split::row) {
    pass.mesh.tp().all_reduce(squares, {.name = factors_.magnitude->name(), .purpose = Purpose::activations}).wait();
  }
  return squares.sqrt().to(weight.scalar_type());
}

at::Tensor LowRankEmbedding::output(const at::Tensor& ids, const at::Tensor& entered, const at::Tensor& y) const {
  return y + scale_ * at::mm(look_up(ids, entered, a_), b_.use().t());
}

}  // namespace echelon
