// One Unit over rank threads, whose gradients are given instead of computed.
#pragma once

#include <map>
#include <memory>
#include <string>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <google/protobuf/any.pb.h>

#include "cluster/base/registry.h"
#include "sharding/unit.h"

namespace echelon {

void register_exact(Registry& registry);
void register_int8(Registry& registry);
void register_power_sgd(Registry& registry);
void register_sign(Registry& registry);
void register_top_k(Registry& registry);

}  // namespace echelon

namespace echelon::testing {

using Gradients = std::map<std::string, at::Tensor>;

template <class Options>
std::unique_ptr<Exchange> make_exchange(const Options& options) {
  Registry registry;
  register_exact(registry);
  register_int8(registry);
  register_power_sgd(registry);
  register_sign(registry);
  register_top_k(registry);
  google::protobuf::Any any;
  any.PackFrom(options, "echelon");
  return registry.make<Exchange>(any, {Seed(5)});
}

inline const std::map<std::string, std::vector<int64_t>>& toy_shapes() {
  static const std::map<std::string, std::vector<int64_t>> shapes{
      {"bias", {37}}, {"filter", {6, 5, 3}}, {"matrix", {38, 29}}};
  return shapes;
}

/// What rank `rank` computes for the whole tensors in one micro-step: normal, and of different size from tensor to
/// tensor.
inline Gradients gradients_of(int rank, int step, int micro = 0) {
  Gradients gradients;
  double scale = 1e-3;
  for (const auto& [name, sizes] : toy_shapes()) {
    Seed seed = Seed(2).with(name).with(rank).with(step).with(micro);
    gradients[name] = keyed_normal(seed, sizes, Slice::whole(sizes)).mul_(scale);
    scale *= 10;
  }
  return gradients;
}

/// Tensors whose first dim tensor parallel ranks share, but for the bias.
class ExchangeToy {
 public:
  ExchangeToy(const Mesh& mesh, int stage, std::unique_ptr<Exchange> exchange, at::ScalarType dtype = at::kFloat)
      : zero(mesh, {.stage = stage, .values = dtype, .master = dtype}) {
    zero.exchange = std::move(exchange);
    weights.units.push_back(std::make_unique<Unit>("toy", zero));
    for (const auto& [name, sizes] : toy_shapes()) {
      unit().add(name, name == "bias" ? Layout::replicated(sizes) : Layout::sharded(sizes, 0, "tp"), {});
    }
    unit().allocate();
  }

  Unit& unit() { return *weights.units.front(); }
  FlatShard& shard() { return unit().trained(); }

  /// One backward for each of `micro_steps` gradients of whole tensors.
  void reduce(const std::vector<Gradients>& micro_steps) {
    shard().forget_gradients();
    for (size_t micro = 0; micro < micro_steps.size(); ++micro) {
      zero.first_micro_step = micro == 0;
      zero.last_micro_step = micro + 1 == micro_steps.size();
      unit().gather();
      unit().before_backward();
      for (const auto& parameter : unit().parameters()) {
        const Slice& local = parameter->local();
        at::Tensor gradient = micro_steps[micro].at(parameter->name()).narrow(0, local.offsets[0], local.sizes[0]);
        bool partial = parameter->name() == "bias";  // the ranks of tp hold shares of it
        parameter->add_gradient(partial ? gradient / zero.mesh.tp().size() : gradient);
      }
      unit().after_backward();
      unit().release();
    }
    shard().sum_partial_gradients();
  }

  /// Step `step` with this rank's own gradients.
  void reduce(int step, int micro_steps = 1) {
    std::vector<Gradients> all;
    for (int micro = 0; micro < micro_steps; ++micro) all.push_back(gradients_of(zero.mesh.dp().rank(), step, micro));
    reduce(all);
  }

  at::Tensor residual() { return zero.exchange->summands(shard()).at("residual"); }

  /// The summed gradients of whole tensors. Collective.
  Gradients whole() {
    Gradients all;
    weights.visit_whole([](FlatShard& shard) { return shard.gradient(); },
                        [&](const Parameter& p, const at::Tensor& value) { all[p.name()] = value.to(at::kDouble); });
    return all;
  }

  Zero zero;
  Weights weights;
};

/// The exact sum over ranks and micro-steps, in float64.
inline Gradients exact_sum(int ranks, int step, int micro_steps = 1) {
  Gradients sum = gradients_of(0, step, 0);
  for (int i = 1; i < ranks * micro_steps; ++i) {
    for (const auto& [name, gradient] : gradients_of(i / micro_steps, step, i % micro_steps)) sum[name].add_(gradient);
  }
  return sum;
}

}  // namespace echelon::testing
