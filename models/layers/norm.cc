#include "models/layers/norm.h"

#include <ATen/ATen.h>

namespace echelon {

NormLayer::NormLayer(Unit& unit, const std::string& name, const Architecture& architecture)
    : epsilon_(architecture.norm_epsilon),
      weight_(&unit.add(name + ".weight", Layout::replicated({architecture.width}), {.constant = 1})) {
  if (architecture.norm == Norm::layer) bias_ = &unit.add(name + ".bias", Layout::replicated({architecture.width}), {});
}

at::Tensor NormLayer::operator()(const at::Tensor& rows) const {
  if (bias_) return at::layer_norm(rows, {rows.size(-1)}, weight_->use(), bias_->use(), epsilon_);
  at::Tensor wide = rows.scalar_type() == at::kBFloat16 ? rows.to(at::kFloat) : rows;
  at::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + epsilon_);
  return weight_->use() * (wide * scale).to(rows.scalar_type());
}

}  // namespace echelon
