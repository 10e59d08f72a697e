// Exchanges that send an approximation and keep what it leaves out.
#pragma once

#include <map>

#include "sharding/exchange.h"
#include "sharding/route.h"

namespace echelon {

/// Adds the gradients of a step to what earlier steps left unsent, sends an approximation of the whole once, and keeps
/// the difference. Nothing gets lost: over any number of steps, what was applied plus the residuals of all ranks is the
/// sum of all gradients. Gradients of several micro-steps are collected in the residual, which is there anyhow: a step
/// sends once at every ZeRO stage. A single rank, or node, sends nothing and leaves nothing.
///
/// The first steps of a run are summed exactly: their gradients are the largest, and what an approximation left out of
/// them would be added to much smaller ones for long.
///
/// Memory: elements() gradients for each shard, on every rank.
/// Sources: Seide et al. 2014 (1-bit SGD); Karimireddy et al. 2019 (error feedback fixes SignSGD).
class ErrorFeedback : public Exchange {
 public:
  /// `between_nodes_only`: see Route.
  ErrorFeedback(bool between_nodes_only, int64_t exact_steps);
  void start(int64_t step) final { exact_now_ = step <= exact_steps_; }
  bool forgets_gradients() const final { return exact_now_; }
  Work reduce(const Reduction& reduction) final;
  std::map<std::string, at::Tensor> summands(FlatShard& shard) final { return {{"residual", residual(shard)}}; }
  int64_t bytes_sent(const FlatShard& shard, const Placement& placement) const final;
  int64_t bytes_kept(const FlatShard& shard, const Placement& placement) const override;

 protected:
  /// Sends an approximation of `rest` [elements] (zero outside of the route's pieces and in the padding), subtracts it
  /// from `rest`, and overwrites `reduction.owned` with this rank's part of the sum of all ranks' approximations.
  virtual void send(const Reduction& reduction, const Route& route, at::Tensor& rest) = 0;

  /// bytes_sent() of a step that is not summed exactly.
  virtual int64_t approximate_bytes_sent(const FlatShard& shard, const Placement& placement) const = 0;

  bool between_nodes_only() const { return between_nodes_only_; }
  /// [elements], of this rank.
  at::Tensor residual(FlatShard& shard);

 private:
  bool between_nodes_only_;
  int64_t exact_steps_;
  bool exact_now_ = false;
  std::unique_ptr<Exchange> exact_ = exact_exchange();
  std::map<const FlatShard*, at::Tensor> residuals_;
};

}  // namespace echelon
