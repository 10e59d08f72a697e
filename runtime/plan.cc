#include "runtime/plan.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/registry.h"
#include "cluster/base/text.h"
#include "comm/session.h"
#include "runtime/build.h"
#include "runtime/recipe/check.h"
#include "runtime/trainer.h"

namespace echelon {

namespace {

/// The data's vocabulary, asked only of a recipe that does not give the model's.
Vocabulary vocabulary_of(const Recipe& recipe, const Registry& registry) {
  if (!recipe.model().has_architecture() || recipe.model().architecture().has_vocabulary()) return any_vocabulary();
  return registry.make<Source>(recipe.data().train(), {1})->vocabulary();
}

struct Numbers {
  int64_t value_bytes, master_bytes, state_tensors, micro_steps, micro_rows;
};

Placement placement_of(const Plan& plan, const Numbers& n) {
  return {.dp = plan.dp,
          .tp = plan.tp,
          .stage = plan.zero,
          .replicas = plan.replicas,
          .element_bytes = n.master_bytes,
          .micro_steps = n.micro_steps};
}

Numbers numbers_of(const Recipe& recipe, const Registry& registry, int dp) {
  ZeroOptions options = zero_options(recipe);
  auto optimizer = registry.make<Optimizer>(recipe.optimizer(), {});
  int64_t share = recipe.batch().global() / dp;
  int64_t micro = recipe.batch().micro() > 0 ? recipe.batch().micro() : share;
  return {static_cast<int64_t>(c10::elementSize(options.values)),
          static_cast<int64_t>(c10::elementSize(options.master)), static_cast<int64_t>(optimizer->state_names().size()),
          share / micro, micro * sequence_length(recipe)};
}

void add_memory(Plan& plan, const FlatShard& shard, const Numbers& n, bool keeps_master) {
  int64_t all = shard.extent(plan.ranks_per_replica(), plan.tp).elements, part = all / plan.ranks_per_replica();
  int64_t owned = plan.zero >= 1 ? part : all;
  plan.values += (plan.zero >= 3 ? part : all) * n.value_bytes;
  if (plan.zero >= 3) plan.gathered = std::max(plan.gathered, all * n.value_bytes);
  if (!shard.trained()) return;
  plan.gradients += (plan.zero >= 2 ? part : all) * n.master_bytes;
  plan.masters += keeps_master ? owned * n.master_bytes : 0;
  plan.state += owned * n.master_bytes * n.state_tensors;
  plan.saved += part * n.master_bytes * (1 + n.state_tensors);
  plan.exchange += shard.zero().exchange->bytes_kept(shard, placement_of(plan, n));
  if (plan.zero >= 2 && plan.ranks_per_replica() > 1) plan.buckets = std::max(plan.buckets, all * n.master_bytes);
}

/// Times that each Unit is gathered in a micro-step of ZeRO-3: in forward, and again in backward unless nothing at or
/// below it learns. A tied head gathers a frozen embedding for itself.
std::vector<int64_t> gathers_of(const Model& model) {
  std::vector<int64_t> gathers;
  bool learns = false;
  for (const auto& unit : model.weights().units) {
    learns = learns || !unit->trained().empty();
    gathers.push_back(learns ? 2 : 1);
  }
  const Architecture& a = model.architecture();
  bool apart = a.tied && a.head && model.weights().units.front()->trained().empty();
  if (apart) gathers.front() += learns ? 2 : 1;
  return gathers;
}

void add_traffic(Plan& plan, const FlatShard& shard, const Numbers& n, int64_t unit_gathers) {
  FlatShard::Extent extent = shard.extent(plan.ranks_per_replica(), plan.tp);
  // Of all ranks together: each of the tp slices is exchanged by the dp ranks of every replica.
  int64_t once = int64_t{plan.replicas} * plan.tp * (plan.ranks_per_replica() - 1) * extent.elements;
  int64_t gathers = plan.zero == 0 ? 0 : plan.zero <= 2 ? shard.trained() : unit_gathers * n.micro_steps;
  plan.sent_parameters += once * n.value_bytes * gathers;
  if (!shard.trained()) return;
  plan.sent_gradients += shard.zero().exchange->bytes_sent(shard, placement_of(plan, n));
  plan.sent_updates += shard.zero().exchange->update_bytes_sent(shard, placement_of(plan, n));
  // Partial sums of tensors that are replicated on tp, each by the ranks that own it.
  int64_t owners = plan.zero >= 1 ? plan.replicas : plan.dp;
  plan.sent_gradients += owners * 2 * (plan.tp - 1) * extent.replicated * n.master_bytes;
}

void add_activations(Plan& plan, const Architecture& a, const Numbers& n, bool recompute) {
  int64_t held = (n.micro_rows + plan.tp - 1) / plan.tp;
  int64_t rows = int64_t{plan.tp} * (plan.tp - 1) * held * a.width * n.value_bytes;  // one collective, one tp group
  int64_t of_blocks = (recompute ? 12 : 8) * a.layers;
  int64_t of_ends = 4;  // embedding and head, forward and backward
  int64_t of_loss = 2 * (plan.tp - 1) * 3 * n.micro_rows * std::max<int64_t>(4, n.value_bytes);
  plan.sent_activations = plan.dp * n.micro_steps * ((of_blocks + of_ends) * rows + of_loss);
}

}  // namespace

Plan plan_of(const Recipe& recipe, int ranks) {
  Registry registry;
  register_builtin_methods(registry);
  ModelSource source = model_source(recipe, vocabulary_of(recipe, registry));
  Session alone = Session::alone();
  Mesh mesh(alone.world(), {});
  Zero zero(mesh, zero_options(recipe));
  zero.exchange = exchange_of(recipe, registry);
  zero.exchange->start(recipe.steps());  // what the run comes to, after any warm-up
  auto adapters = adapter_set(recipe, source, registry);
  Model model(source.architecture, zero);
  adapters->attach(model);

  Plan plan{.parameters = model.weights().elements(),
            .dp = data_parallel_ranks(recipe, ranks),
            .tp = recipe.mesh().tp(),
            .zero = recipe.sharding().zero(),
            .replicas = recipe.mesh().replicas()};
  Numbers numbers = numbers_of(recipe, registry, plan.dp);
  std::vector<int64_t> gathers = gathers_of(model);
  for (size_t i = 0; i < gathers.size(); ++i) {
    for (const FlatShard* shard : {&model.weights().units[i]->trained(), &model.weights().units[i]->frozen()}) {
      if (shard->empty()) continue;
      add_memory(plan, *shard, numbers, zero.keeps_master());
      add_traffic(plan, *shard, numbers, gathers[i]);
    }
  }
  // What the exchange keeps is saved too; the first replica, which copies most, stands for all.
  plan.saved = recipe.checkpoint().background() ? plan.saved + plan.exchange : 0;
  add_activations(plan, source.architecture, numbers, recipe.sharding().recompute() == FULL);
  return plan;
}

std::string describe(const Plan& plan) {
  std::string replicas = plan.replicas > 1 ? fmt::format(" in {} replicas", plan.replicas) : "";
  std::string text =
      fmt::format("\n# {} parameters on dp={} tp={}{} with ZeRO-{}\n",
                  human_count(static_cast<double>(plan.parameters)), plan.dp, plan.tp, replicas, plan.zero);
  auto row = [&](const char* name, int64_t bytes, const char* note) {
    text += fmt::format("#   {:<28}{:>12}  {}\n", name, human_bytes(bytes), note);
  };
  text += "# bytes per rank\n";
  row("weights", plan.values, "");
  row("gradients", plan.gradients, "");
  row("masters", plan.masters, plan.masters ? "" : "the weights themselves");
  row("optimizer state", plan.state, "");
  row("exchange", plan.exchange, plan.exchange ? "kept between steps" : "keeps nothing");
  row("together", plan.total(),
      fmt::format("{:.2f} a parameter", static_cast<double>(plan.total()) / static_cast<double>(plan.parameters))
          .c_str());
  row("largest gradient bucket", plan.buckets, "in backward; two with sharding.overlap between nodes");
  if (plan.saved > 0) row("copy for checkpoints", plan.saved, "while they are written");
  row("largest gathered unit", plan.gathered, "none where ranks share memory; two with sharding.overlap");
  text += "# bytes sent per step, all ranks\n";
  row("gradients", plan.sent_gradients, "");
  row("parameters", plan.sent_parameters, "");
  row("activations", plan.sent_activations, "");
  if (plan.sent_updates > 0) row("updates", plan.sent_updates, "when replicas meet");
  return text;
}

}  // namespace echelon
