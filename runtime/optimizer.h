// Updates of the masters that a rank owns.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "sharding/unit.h"

namespace echelon {

/// What a parameter group says of a tensor.
struct GroupRule {
  double learning_rate_factor = 1;
  std::optional<double> weight_decay;  ///< absent: the optimizer's on matrices, 0 on biases and norms
};

/// Masters and gradients that this rank owns of some trained tensors, with the optimizer's state for them.
struct Owned {
  FlatShard* shard;
  std::map<std::string, at::Tensor> state;  ///< flat shards like the master, by name ("exp_avg")
  std::vector<GroupRule> rules;             ///< one for each of shard->segments()
};

/// Calls `visit` with "" and the master, then with "." and a name and each tensor of the state.
void visit_state(Owned& owned, const std::function<void(const std::string& name, const at::Tensor& flat)>& visit);

/// The numbers of one update.
struct Update {
  int64_t step = 1;  ///< 1 = first
  double learning_rate = 0;
  double gradient_scale = 1;  ///< factor on gradients: clipping
};

/// Parts of one owned shard that are updated alike; pointers into master, gradient and state.
template <class Real>
struct Stretch {
  Real* master;
  const Real* gradient;
  std::vector<Real*> state;  ///< in the order of Optimizer::state_names
  int64_t length;
  double learning_rate, weight_decay;
  bool on_gpu = false;
};

class Optimizer {
 public:
  struct Context {};
  virtual ~Optimizer() = default;
  /// The peak; the schedule scales it.
  virtual double learning_rate() const = 0;
  virtual double weight_decay() const = 0;
  /// How the gradients travel, where the optimizer sends something else than gradients; null: as the recipe says.
  /// `owned` gradients are then what this exchange makes of them.
  virtual std::unique_ptr<Exchange> exchange() const { return nullptr; }
  /// Names of the tensors that it keeps for every parameter.
  virtual std::vector<std::string> state_names() const = 0;

  /// Updates the masters of one shard.
  void step(Owned& owned, const Update& update) const;

 protected:
  /// Whether update() takes memory of a GPU.
  virtual bool updates_on_gpu() const { return false; }
  virtual void update(const Stretch<float>& stretch, const Update& update) const = 0;
  virtual void update(const Stretch<double>& stretch, const Update& update) const = 0;

 private:
  struct Memory;
  template <class Real>
  void step_as(const Owned& owned, const Memory& memory, const Update& update) const;
};

/// An optimizer whose proto `Options` names rate and decay, and whose update is one template for both precisions:
/// `template <class Real> void apply(const Stretch<Real>&, const Update&) const` of `Self`.
template <class Options, class Self>
class OptimizerWith : public Optimizer {
 public:
  explicit OptimizerWith(const Options& options) : options_(options) {}
  double learning_rate() const override { return options_.learning_rate(); }
  double weight_decay() const override { return options_.weight_decay(); }

 protected:
  void update(const Stretch<float>& stretch, const Update& update) const override { self().apply(stretch, update); }
  void update(const Stretch<double>& stretch, const Update& update) const override { self().apply(stretch, update); }
  Options options_;

 private:
  const Self& self() const { return static_cast<const Self&>(*this); }
};

/// Zeroed state for a shard.
Owned own(FlatShard& shard, const Optimizer& optimizer, const std::vector<GroupRule>& rules);

}  // namespace echelon
