#include "runtime/checkpoint/shard_plan.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "runtime/checkpoint/exchange_state.h"
#include "runtime/checkpoint/names.h"
#include "runtime/recipe/text.h"

namespace echelon {

namespace {

/// A quantity that is kept for every tensor: masters (prefix "") and the optimizer's state.
struct Quantity {
  std::string prefix;
  std::function<at::Tensor(Owned&)> owned;
};

/// Copies of masters and optimizer state that differ.
int copies_of(Trainer& trainer) { return trainer.zero().exchange->synchronous() ? 1 : trainer.mesh().replicas(); }

/// Those that this rank's replica saves.
std::vector<Quantity> quantities(Trainer& trainer) {
  int replica = trainer.mesh().replica();
  if (replica >= copies_of(trainer)) return {};
  std::string before = replica_prefix(replica);
  std::vector<Quantity> all{{before, [](Owned& owned) { return owned.shard->master(); }}};
  for (const std::string& name : trainer.optimizer().state_names()) {
    all.push_back({before + state_prefix(name), [name](Owned& owned) { return owned.state.at(name); }});
  }
  if (replica > 0 || trainer.owned().empty()) return all;
  Exchange& exchange = *trainer.zero().exchange;
  for (const auto& [name, _] : exchange.owned_state(*trainer.owned().front().shard)) {
    all.push_back({exchange_prefix(name),
                   [&exchange, name = name](Owned& owned) { return exchange.owned_state(*owned.shard).at(name); }});
  }
  return all;
}

std::string state_text(Trainer& trainer, int64_t step) {
  Json state{{"step", step},
             {"samples", trainer.train_data().first_sample(step + 1)},
             {"optimizer_state", trainer.optimizer().state_names()},
             {"exchange", {{"ranks", trainer.mesh().world().size()}, {"tp", trainer.mesh().tp().size()}}},
             {"replicas", copies_of(trainer)},
             {"recipe", recipe_text(trainer.recipe())},
             {"config", trainer.source().config}};
  return dump_json(state, 2) + "\n";
}

}  // namespace

ShardPlan shard_plan(Trainer& trainer, int64_t step) {
  const Group& world = trainer.mesh().world();
  ShardPlan plan{.file = shard_name(world.rank(), world.size()), .writer = fmt::format("rank {}", world.rank())};
  Json offsets = Json::object();
  bool wide = trainer.zero().options.master == at::kDouble;
  auto add = [&](const std::string& name, const Slice& slice) {
    plan.tensors.push_back({name, wide ? DType::F64 : DType::F32, slice.sizes, 0, 0});
    offsets[name] = {{"saved_offsets", slice.offsets}};
    plan.bytes += slice.elements() * (wide ? 8 : 4);
  };
  std::vector<Quantity> all = quantities(trainer);
  for (const Owned& owned : trainer.owned()) {
    for (const Quantity& quantity : all) {
      for (const FlatShard::Rows& rows : owned.shard->rows_to_save())
        add(quantity.prefix + rows.parameter->name(), rows.slice);
    }
  }
  for (const KeptByExchange& kept : kept_by_exchange(trainer)) add(kept.name, kept.slice);
  plan.metadata = {{"format", "pt"}, {"DCP_VERSION", "1.0"}, {"DCP_SHARDING_INFO", dump_json(offsets)}};
  if (world.rank() == 0) plan.state = state_text(trainer, step);
  return plan;
}

void visit_planned(Trainer& trainer,
                   const std::function<void(const std::string& name, const at::Tensor& values, Lasts lasts)>& take) {
  std::vector<Quantity> all = quantities(trainer);
  for (Owned& owned : trainer.owned()) {
    for (const Quantity& quantity : all) {
      FlatShard::Reach reach = owned.shard->reach(quantity.owned(owned));
      for (const FlatShard::Rows& rows : owned.shard->rows_to_save()) {
        take(quantity.prefix + rows.parameter->name(), rows.values(reach), Lasts::until_update);
      }
    }
  }
  for (const KeptByExchange& kept : kept_by_exchange(trainer)) take(kept.name, kept.value, Lasts::call);
}

std::string layout_text(const Trainer& trainer) {
  const Mesh& mesh = trainer.mesh();
  return fmt::format("ranks={} dp={} tp={} zero={}", mesh.world().size(), mesh.dp().size(), mesh.tp().size(),
                     trainer.recipe().sharding().zero());
}

}  // namespace echelon
