// Products with weights, on one rank or split over the tensor parallel ranks.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/layers/slots.h"
#include "sharding/unit.h"

namespace echelon {

/// How a linear is split over `tp`. Source: Shoeybi et al. 2019 (Megatron-LM), Korthikanti et al. 2022 (sequence
/// parallel).
enum class Split {
  none,    ///< whole on every rank
  column,  ///< outputs are split: whole rows in, this rank's outputs out
  row,     ///< inputs are split: this rank's inputs in, partial sums out, reduce-scattered over rows
};

/// y = x Wᵀ + b with weight [out, in]. The weight's gradient is written straight into the Unit's flat gradient.
class Linear {
 public:
  struct Options {
    bool bias = true;
    Split split = Split::none;
    double standard_deviation = 0.02;
  };

  Linear(Unit& unit, const std::string& name, int64_t inputs, int64_t outputs, const Options& options);

  /// x [N, in or in / tp]. Column and none: [N, out or out / tp]. Row: this rank's rows of the sum, [ceil(N / tp),
  /// out].
  at::Tensor operator()(const at::Tensor& x, const Pass& pass) const;

  /// "layers.3.attention.query"
  const std::string& name() const { return name_; }
  Unit& unit() const { return unit_; }
  Split split() const { return split_; }
  const Parameter& weight() const { return *weight_; }
  const Parameter* bias() const { return bias_; }
  /// `reparam` must outlive this.
  void attach(const Reparam& reparam) { reparams_.push_back(&reparam); }
  bool is_adapted() const { return !reparams_.empty(); }
  void detach_all() { reparams_.clear(); }

 private:
  std::string name_;
  Unit& unit_;
  Split split_;
  std::vector<const Reparam*> reparams_;
  Parameter* weight_;
  Parameter* bias_ = nullptr;
};

/// x Wᵀ + b by an operator whose backward adds to the parameters' gradients. x [N, in]; must be part of a graph (behind
/// Unit::enter) for the weights to learn.
at::Tensor linear(const at::Tensor& x, const Parameter& weight, const Parameter* bias);

}  // namespace echelon
