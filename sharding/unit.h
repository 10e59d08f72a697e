// The smallest piece of a model that is gathered, run and recomputed together.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "sharding/flat_shard.h"

namespace at {
struct RecordFunction;
}

namespace echelon {

/// (Usually) one transformer block: its trained tensors in one FlatShard, its frozen ones in another.
///
/// The values are there between enter() and leave(), and again during backward. Gradients of trained tensors are
/// reduced to their owners when the Unit's backward ends; of a Unit without trained tensors only what its input asks
/// for is computed.
class Unit {
 public:
  Unit(std::string name, Zero& zero);
  ~Unit();
  Unit(const Unit&) = delete;
  Unit& operator=(const Unit&) = delete;

  const std::string& name() const { return name_; }
  /// Among the Units of its Zero, in the order in which they were made: that of the forward pass.
  int position() const { return position_; }
  Zero& zero() const { return trained_.zero(); }

  /// Declares a trained tensor. All ranks declare the same tensors in the same order, then allocate(). Collective.
  Parameter& add(std::string name, Layout layout, Init init);
  /// A tensor that never changes. Before allocate() only.
  void freeze(Parameter& parameter);
  void allocate();
  const std::vector<std::unique_ptr<Parameter>>& parameters() const { return parameters_; }
  FlatShard& trained() { return trained_; }
  FlatShard& frozen() { return frozen_; }

  /// Between these two the values are readable. With gradients on, their backward runs in reverse: leave() gathers
  /// again and takes gradient memory, enter() reduces the gradient to its owner and releases. `input` may be undefined
  /// where the Unit has no differentiable input (an embedding of ids): then the result is a scalar on which the Unit's
  /// first operator must be made to depend, see Embedding.
  at::Tensor enter(const at::Tensor& input);
  at::Tensor leave(const at::Tensor& output);
  /// enter, body, leave; with gradients on, nothing between is kept and `body` runs again in backward.
  /// Source: Chen et al. 2016 (training deep nets with sublinear memory cost).
  at::Tensor recompute(const std::function<at::Tensor(const at::Tensor&)>& body, const at::Tensor& input);

  void gather();
  void release();
  void begin_forward();
  void end_forward();
  void before_backward();
  void after_backward();

 private:
  /// Shows in a profile from now until span_ is reset.
  void begin_span(const char* pass);
  /// gather(), and starts to fetch the Unit that is expected next.
  void gather_in(Direction direction);
  void fetch();
  bool learns_from(const at::Tensor& input) const;

  std::string name_;
  int position_;
  std::vector<std::unique_ptr<Parameter>> parameters_;
  FlatShard trained_, frozen_;
  int gathered_times_ = 0;
  std::unique_ptr<at::RecordFunction> span_;
  at::Tensor anchor_;  // requires gradients, so that enter() has a backward where the Unit is trained
};

}  // namespace echelon
