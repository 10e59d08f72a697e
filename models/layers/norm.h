// LayerNorm and RMSNorm.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

#include "models/architecture.h"
#include "sharding/unit.h"

namespace echelon {

/// Normalises rows [N, D]. Sources: Ba et al. 2016 (layer), Zhang and Sennrich 2019 (rms; computed in float32 when the
/// input is bfloat16, cast back, then scaled).
class NormLayer {
 public:
  NormLayer(Unit& unit, const std::string& name, const Architecture& architecture);
  at::Tensor operator()(const at::Tensor& rows) const;

 private:
  double epsilon_;
  Parameter* weight_;
  Parameter* bias_ = nullptr;   // LayerNorm only
};

}  // namespace echelon
