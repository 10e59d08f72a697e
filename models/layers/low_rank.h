// Low-rank updates of a linear or an embedding.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/layers/linear.h"
#include "models/layers/slots.h"

namespace echelon {

/// The factors of one linear's update. A is shared by the linears that are stored as one module.
struct LowRankFactors {
  const Parameter* a = nullptr;        ///< [rank, in]
  const Parameter* b = nullptr;        ///< [out, rank]
  const Parameter* first_a = nullptr;  ///< frozen copies of what a and b start from, where that is not zero
  const Parameter* first_b = nullptr;
  const Parameter* magnitude = nullptr;  ///< DoRA's lengths [out]
};

/// y = x Wᵀ + scale (drop(x) Aᵀ Bᵀ - x A₀ᵀ B₀ᵀ), and with a magnitude m the same with rows of length m. Sources: Hu et
/// al. 2021, Liu et al. 2024 (DoRA), whose lengths are constants to autograd as in section 4.3 of the paper.
class LowRankLinear : public Reparam {
 public:
  /// `linear` must outlive this.
  LowRankLinear(const Linear& linear, LowRankFactors factors, double scale, double dropout)
      : linear_(linear), factors_(factors), scale_(scale), dropout_(dropout) {}
  at::Tensor product(const at::Tensor& x, const at::Tensor& y, const Pass& pass) const override;

 private:
  at::Tensor without_start(const at::Tensor& x, const at::Tensor& y) const;
  at::Tensor row_lengths(const Pass& pass) const;

  const Linear& linear_;
  LowRankFactors factors_;
  double scale_, dropout_;
};

/// y + scale A[ids] Bᵀ; A is held as [rows, rank], so that it is looked up like any table.
class LowRankEmbedding : public EmbeddingReparam {
 public:
  LowRankEmbedding(const Parameter& a, const Parameter& b, double scale) : a_(a), b_(b), scale_(scale) {}
  at::Tensor output(const at::Tensor& ids, const at::Tensor& entered, const at::Tensor& y) const override;

 private:
  const Parameter &a_, &b_;
  double scale_;
};

}  // namespace echelon
