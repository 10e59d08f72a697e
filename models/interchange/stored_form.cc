#include "models/interchange/stored_form.h"

#include <ATen/ATen.h>

namespace echelon {

std::vector<TensorPlace> StoredForm::places(const std::string& tensor) const {
  std::vector<TensorPlace> chosen;
  for (TensorPlace place : family_.places(tensor)) {
    if (place.only_untied && architecture_.tied) continue;
    if (!architecture_.head && place.name.starts_with(family_.base_prefix))
      place.name.erase(0, family_.base_prefix.size());
    chosen.push_back(std::move(place));
  }
  return chosen;
}

at::Tensor StoredForm::put(const TensorPlace& place, const at::Tensor& values) {
  at::Tensor turned = place.transposed ? values.t() : values;
  if (place.parts == 1) return turned.contiguous();
  Fused& fused = fused_[place.name];
  if (!fused.values.defined()) fused.values = at::empty(place.stored_sizes(values.sizes().vec()), values.options());
  int64_t piece = fused.values.size(-1) / place.parts;
  fused.values.narrow(-1, piece * place.part, piece).copy_(turned);
  if (++fused.parts < place.parts) return {};
  at::Tensor whole = fused.values;
  fused_.erase(place.name);
  return whole;
}

}  // namespace echelon
