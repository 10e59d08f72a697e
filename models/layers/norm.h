// LayerNorm and RMSNorm.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

#include "models/architecture.h"
#include "sharding/unit.h"

namespace echelon {

/// Rows, for the residual sum, and their norm.
struct NormedRows {
  at::Tensor rows, normed;
};

/// Normalises rows [N, D], in float32 when they are bfloat16. Sources: Ba et al. 2016 (layer), Zhang and Sennrich 2019
/// (rms).
class NormLayer {
 public:
  NormLayer(Unit& unit, const std::string& name, const Architecture& architecture);
  at::Tensor operator()(const at::Tensor& rows) const { return beside(rows).normed; }
  /// The norm, and the same rows again: who uses both has their gradients summed in the norm's backward.
  NormedRows beside(const at::Tensor& rows) const;

 private:
  at::Tensor by_operators(const at::Tensor& rows) const;

  double epsilon_;
  Parameter* weight_;
  Parameter* bias_ = nullptr;  // LayerNorm only
};

}  // namespace echelon
