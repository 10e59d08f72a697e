// Adapters folded into the shards of a live model: on any ranks the bytes of a merged folder, and taken out again bit
// by bit.
#include <algorithm>

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/interchange/merge_folder.h"
#include "models/merged_shards.h"
#include "runtime/recipe/text.h"
#include "tests/runtime/corpus.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/runtime/ranks/trace.h"
#include "tests/test_session.h"

namespace echelon {
namespace {

using testing::NamedTensors;

const Group& world() { return testing::session().world(); }

Recipe recipe_of(const std::string& adapter, int zero, int tp, const std::vector<std::string>& more = {}) {
  std::vector<std::string> overrides{"sharding.zero=" + std::to_string(zero), "mesh.tp=" + std::to_string(tp),
                                     "model.architecture.dropout=0"};
  overrides.insert(overrides.end(), more.begin(), more.end());
  Recipe recipe = testing::tiny_recipe("base/tiny_decoder_clm", overrides);
  recipe.MergeFrom(parse_recipe(adapter, "test"));
  return recipe;
}

struct Training {
  explicit Training(const Recipe& recipe) : mesh(world(), {.tp = recipe.mesh().tp()}), trainer(recipe, mesh) {}

  Model& model() { return trainer.model(); }
  std::vector<MergeRule> rules() { return trainer.adapters().merge_rules(model()); }
  /// Of the model's own tensors, without what adapters add.
  NamedTensors base() {
    NamedTensors all = testing::whole(trainer, [](FlatShard& shard) { return shard.master(); });
    std::erase_if(all, [](const auto& each) { return each.first.starts_with("adapters."); });
    return all;
  }
  /// Gives the adapters' tensors values that they could have learnt.
  void randomise(const Seed& seed, double deviation = 0.1) {
    WholeTensors values;
    for (const Parameter* parameter : model().weights().parameters()) {
      if (!parameter->name().starts_with("adapters.") || !parameter->trained()) continue;
      const auto& sizes = parameter->layout().sizes;
      values[parameter->name()] = keyed_normal(seed.with(parameter->name()), sizes, Slice::whole(sizes)) * deviation +
                                  parameter->init().constant;
    }
    model().weights().assign(values);
  }

  Mesh mesh;
  Trainer trainer;
};

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  at::ScalarType bits = a.element_size() == 8 ? at::kLong : a.element_size() == 4 ? at::kInt : at::kShort;
  return a.scalar_type() == b.scalar_type() && at::equal(a.contiguous().view(bits), b.contiguous().view(bits));
}

void expect_same_bits(const NamedTensors& got, const NamedTensors& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (const auto& [name, value] : expected) EXPECT_TRUE(same_bits(got.at(name), value)) << name;
}

int64_t count_changed(const NamedTensors& a, const NamedTensors& b) {
  return std::count_if(a.begin(), a.end(), [&](const auto& each) { return !same_bits(each.second, b.at(each.first)); });
}

std::vector<std::pair<int, int>> layouts() {
  std::vector<std::pair<int, int>> all{{0, 1}, {1, 1}, {2, 1}, {3, 1}};
  if (testing::has_ranks_for(2)) all.insert(all.end(), {{0, 2}, {2, 2}, {3, 2}});
  return all;
}

/// A base and an adapter as folders, and what `echelon merge` makes of them.
struct Folders {
  std::string base, adapter, merged;
};

Folders write_folders(const std::string& name, const std::string& adapter, const std::vector<std::string>& model,
                      bool half) {
  std::string stem = testing::temporary_folder() + "/" + name;
  Folders folders{stem + ".base", stem + ".adapter", stem + ".merged"};
  Training plain(recipe_of("", 3, 1, model));
  write_model_folder(folders.base, plain.model(), plain.trainer.source().config,
                     {.dtype = half ? at::kBFloat16 : at::kFloat, .max_shard_bytes = 50'000});
  Recipe recipe = recipe_of(adapter, 3, 1);
  recipe.mutable_model()->Clear();
  recipe.mutable_model()->set_load(folders.base);
  Training adapted(recipe);
  adapted.randomise(Seed(5));
  adapted.trainer.adapters().write(folders.adapter, adapted.model(), folders.base);
  Registry registry;
  register_builtin_methods(registry);
  merge_folder(folders.base, folders.adapter, folders.merged, registry, world());
  return folders;
}

Recipe recipe_from(const std::string& model, const std::string& adapter, int zero, int tp, bool half) {
  Recipe recipe = recipe_of("", zero, tp, {half ? "precision=BF16" : "precision=FP32"});
  recipe.mutable_model()->Clear();
  recipe.mutable_model()->set_load(model);
  if (!adapter.empty()) recipe.mutable_model()->add_adapter(adapter);
  return recipe;
}

struct Case {
  std::string name, adapter;
  std::vector<std::string> model = {};
  bool half = false;
};

const std::vector<std::string> kLlama{"model.architecture.family=llama", "model.architecture.kv_heads=2",
                                      "model.architecture.tied=false"};

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"Lora", "adapter { [echelon/Lora] { rank: 3 alpha: 6 targets: [\"c_attn\", \"mlp.c_proj\"] } }"},
      {"LoraInBfloat16", "adapter { [echelon/Lora] { rank: 3 targets: \"all-linear\" } }", {}, true},
      {"LoraOnEmbedding", "adapter { [echelon/Lora] { rank: 3 targets: [\"embed_tokens\", \"o_proj\"] } }", kLlama},
      {"Dora", "adapter { [echelon/Lora] { rank: 3 dora: true targets: \"all-linear\" } }"},
      {"DoraInBfloat16", "adapter { [echelon/Lora] { rank: 2 dora: true targets: \"all-linear\" } }", kLlama, true},
      {"Pissa", "adapter { [echelon/Lora] { rank: 2 init: PISSA targets: \"c_fc\" } }"},
      {"Ia3", "adapter { [echelon/Ia3] {} }"},
  };
  return all;
}

class Merging : public ::testing::TestWithParam<size_t> {};

TEST_P(Merging, OnAnyRanksGivesTheBytesOfTheMergedFolderAndTheBaseBack) {
  const Case& c = cases()[GetParam()];
  Folders folders = write_folders(c.name, c.adapter, c.model, c.half);
  NamedTensors expected = [&] {
    Recipe frozen = recipe_from(folders.merged, "", 3, 1, c.half);
    frozen.add_trainable("norm");  // so that matrices stay in the dtype of values
    return Training(frozen).base();
  }();
  for (auto [zero, tp] : layouts()) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", zero, tp));
    Recipe recipe = recipe_from(folders.base, folders.adapter, zero, tp, c.half);
    recipe.add_trainable("norm");
    Training live(recipe);
    NamedTensors before = live.base();
    MergedShards merged(live.model().weights());
    merged.merge(live.rules());
    expect_same_bits(live.base(), expected);
    EXPECT_GT(count_changed(before, expected), 0);
    merged.unmerge();
    expect_same_bits(live.base(), before);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Merging, ::testing::Range<size_t>(0, 7),
                         [](const auto& info) { return cases()[info.param].name; });

const std::vector<std::string> kTiny{"model.architecture.layers=1", "model.architecture.width=16",
                                     "model.architecture.heads=2", "model.architecture.feed_forward=24"};

TEST(MergedShards, AThousandMergesLeaveTheBaseAsItWas) {
  for (bool half : {false, true}) {
    std::vector<std::string> more = kTiny;
    more.push_back(half ? "precision=BF16" : "precision=FP32");
    Training live(recipe_of("adapter { [echelon/Lora] { rank: 2 dora: true targets: \"all-linear\" } }", 3,
                            testing::has_ranks_for(4) ? 2 : 1, more));
    NamedTensors before = live.base();
    MergedShards merged(live.model().weights());
    std::vector<std::vector<MergeRule>> rules;
    for (int64_t i = 0; i < 10; ++i) {
      live.randomise(Seed(i), i % 2 ? 0.05 : 2);
      rules.push_back(live.rules());
    }
    for (int64_t i = 0; i < (half ? 50 : 500); ++i) {
      merged.merge(rules[i % 10]);
      merged.merge(rules[(i + 3) % 10]);
      merged.unmerge();
      if (i % 5 != 0) merged.unmerge();  // some stay below those that follow
    }
    EXPECT_GT(merged.bytes_kept(), 0);
    EXPECT_GT(count_changed(live.base(), before), 0);
    while (merged.merges() > 0) merged.unmerge();
    expect_same_bits(live.base(), before);
  }
}

TEST(MergedShards, TrainingGoesOnFromAMergedAdapter) {
  for (const char* options : {"rank: 2", "rank: 2 dora: true", "rank: 2 init: PISSA"}) {
    SCOPED_TRACE(options);
    Recipe recipe = recipe_of(fmt::format("adapter {{ [echelon/Lora] {{ {} targets: \"all-linear\" }} }}", options), 3,
                              testing::has_ranks_for(4) ? 2 : 1);
    Training chained(recipe), plain(recipe);
    NamedTensors start = chained.base();
    MergedShards merged(chained.model().weights());
    for (int64_t step = 1; step <= 9; ++step) {
      double loss = chained.trainer.step(step).loss;
      if (step <= 4) {
        EXPECT_NEAR(loss, plain.trainer.step(step).loss, 2e-6 * loss) << "step " << step;
      }
      if (step % 3 != 0) continue;
      merged.merge(chained.rules());
      chained.trainer.adapters().start_anew(chained.model(), Seed(step));
      for (Owned& owned : chained.trainer.owned()) {
        for (auto& [name, state] : owned.state) state.zero_();
      }
      chained.trainer.state_was_set();
    }
    EXPECT_EQ(merged.merges(), 3u);
    while (merged.merges() > 0) merged.unmerge();
    expect_same_bits(chained.base(), start);
  }
}

TEST(MergedShards, FoldedInForGoodTheModelComputesAsItDidAndAdaptersAreLeftOut) {
  Folders folders = write_folders("fold", "adapter { [echelon/Lora] { rank: 3 targets: \"all-linear\" } }", {}, false);
  for (auto [zero, tp] : layouts()) {
    SCOPED_TRACE(fmt::format("ZeRO-{} tp={}", zero, tp));
    Training live(recipe_from(folders.base, folders.adapter, zero, tp, false));
    Training whole(recipe_from(folders.merged, "", zero, tp, false));
    Batch batch = live.trainer.batches(1).front();
    auto forward = [&](Training& run, int64_t& sent) {
      int64_t before = world().bytes_sent(Purpose::parameters);
      at::Tensor logits = run.model().forward(batch, run.model().pass(batch, Seed(0), false)).logits;
      sent = world().bytes_sent(Purpose::parameters) - before;
      return logits;
    };
    int64_t with_adapters = 0, without = 0, unused = 0, of_adapters = 0;
    at::Tensor adapted = forward(live, with_adapters);
    live.trainer.adapters().fold_into(live.model());
    at::Tensor folded = forward(live, without);
    EXPECT_TRUE(at::allclose(folded, adapted, 1e-4, 1e-4));
    EXPECT_TRUE(same_bits(folded, forward(whole, unused)));
    for (FlatShard* shard : live.model().weights().trained()) {
      of_adapters += shard->elements() - shard->elements() / live.mesh.dp().size();
    }
    EXPECT_EQ(with_adapters - without, zero == 3 ? 4 * of_adapters : 0);
  }
}

TEST(MergedShards, RefuseWhatCannotBeFoldedIn) {
  auto refusal_of = [](const std::string& adapter, double deviation = 0.1) -> std::string {
    Training live(recipe_of(adapter, 3, testing::has_ranks_for(2) ? 2 : 1));
    live.randomise(Seed(1), deviation);
    NamedTensors before = live.base();
    try {
      MergedShards(live.model().weights()).merge(live.rules());
    } catch (const Error& error) {
      expect_same_bits(live.base(), before);
      return error.what();
    }
    return "no error";
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(refusal_of("adapter { [echelon/PrefixTuning] { tokens: 2 } }"), HasSubstr("cannot become part of"));
  EXPECT_THAT(refusal_of("adapter { [echelon/Lora] { targets: \"wte\" } }"), HasSubstr("which the head shares"));
  EXPECT_THAT(refusal_of("adapter { [echelon/Lora] { targets: \"c_fc\" } }", 1e30),
              HasSubstr("layers.0.feed_forward.up.weight: leaves the range of its dtype"));
  Training plain(recipe_of("", 3, 1));
  MergedShards none(plain.model().weights());
  EXPECT_THROW(none.unmerge(), Error);
}

}  // namespace
}  // namespace echelon
