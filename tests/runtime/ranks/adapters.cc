// Adapters: any number of ranks takes the step of one, and the base stays as it was, bit for bit.
#include <cstring>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/base/safetensors.h"
#include "runtime/plan.h"
#include "runtime/recipe/text.h"
#include "runtime/run.h"
#include "tests/runtime/corpus.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/runtime/ranks/trace.h"
#include "tests/test_session.h"

namespace echelon {
namespace {

using testing::expect_equal_in_float64;
using testing::has_ranks_for;

constexpr int64_t kSteps = 4;

struct Case {
  std::string name, adapter;  ///< lines of a recipe
  std::string base = "base/tiny_decoder_clm";
};

/// Makes the decoder a Llama with grouped queries.
constexpr const char* kLlama = "model { architecture { family: \"llama\" kv_heads: 2 dropout: 0 } } ";

const std::vector<Case>& cases() {
  static const std::vector<Case> all = {
      {"Lora", "adapter { [echelon/Lora] { rank: 3 alpha: 6 dropout: 0.2 targets: [\"c_attn\", \"mlp.c_proj\"] } }"},
      {"LoraOnEmbedding", "adapter { [echelon/Lora] { rank: 3 rslora: true targets: [\"wte\", \"attn.c_proj\"] } }"},
      {"LoraOnTheHead",
       "model { architecture { tied: false } }"
       "adapter { [echelon/Lora] { rank: 3 dropout: 0.1 targets: [\"lm_head\", \"c_attn\"] } }"},
      {"DoraOnTheHead",
       "model { architecture { tied: false } } adapter { [echelon/Lora] { rank: 2 dora: true targets: \"lm_head\" } }"},
      {"Dora", "adapter { [echelon/Lora] { rank: 3 dora: true dropout: 0.1 targets: [\"c_attn\", \"mlp.c_proj\"] } }"},
      {"Pissa", "adapter { [echelon/Lora] { rank: 3 init: PISSA targets: \"all-linear\" } }"},
      {"Olora", "adapter { [echelon/Lora] { rank: 3 init: OLORA dora: true targets: \"c_attn\" } }"},
      {"LoraWithPatterns",
       "adapter { [echelon/Lora] { rank: 2 targets: \"all-linear\" exclude: \"mlp.c_fc\" layers: 1 override { pattern: "
       "\"c_attn\" rank: 4 } } }"
       "parameter_group { pattern: \"lora_B$\" learning_rate_factor: 16 }"},
      {"Ia3", "adapter { [echelon/Ia3] {} }"},
      {"Ia3OnAnEncoder", "adapter { [echelon/Ia3] {} }", "base/tiny_encoder_mlm"},
      {"LoraOnAnEncoder", "adapter { [echelon/Lora] { rank: 2 targets: \"all-linear\" } }", "base/tiny_encoder_mlm"},
      {"PrefixTuning", "adapter { [echelon/PrefixTuning] { tokens: 3 } }"},
      {"PromptTuning", "adapter { [echelon/PromptTuning] { tokens: 3 start_ids: [7, 8] } }"},
      {"PTuning", "adapter { [echelon/PTuning] { tokens: 3 hidden: 5 } }"},
      {"SerialBottleneck", "adapter { [echelon/Bottleneck] { width: 3 } }"},
      {"ParallelBottleneck",
       "adapter { [echelon/Bottleneck] { width: 3 parallel: true placement: AFTER_FEED_FORWARD scale: 4 activation: "
       "GELU } }"},
      {"BitFit", "trainable: \"\\\\.bias$\""},
      {"LoraBesideTrainedNorms", "trainable: [\"norm\", \"^head\"] adapter { [echelon/Lora] { rank: 2 } }",
       "base/tiny_encoder_mlm"},
      {"LoraOnLlama",
       kLlama + std::string("adapter { [echelon/Lora] { rank: 3 dropout: 0.1 targets: \"all-linear\" } }")},
      {"DoraOnLlama", kLlama + std::string("adapter { [echelon/Lora] { rank: 2 dora: true } }")},
      {"Ia3OnLlama", kLlama + std::string("adapter { [echelon/Ia3] {} }")},
      {"PrefixTuningOfLlama", kLlama + std::string("adapter { [echelon/PrefixTuning] { tokens: 3 } }")},
      {"PromptTuningOfLlama", kLlama + std::string("adapter { [echelon/PromptTuning] { tokens: 3 } }")},
      {"BottleneckInLlama", kLlama + std::string("adapter { [echelon/Bottleneck] { width: 3 } }")},
      {"PrefixTuningOfAnEncoder", "adapter { [echelon/PrefixTuning] { tokens: 3 } }", "base/tiny_encoder_mlm"},
      {"BottleneckInAnEncoder", "adapter { [echelon/Bottleneck] { width: 3 } }", "base/tiny_encoder_mlm"},
      {"TwoAtOnce", "adapter { [echelon/Lora] { rank: 2 } } adapter { [echelon/Ia3] { name: \"gates\" } }"},
  };
  return all;
}

Recipe recipe_of(const Case& c, int zero, int tp) {
  Recipe recipe =
      testing::tiny_recipe(c.base, {"sharding.zero=" + std::to_string(zero), "mesh.tp=" + std::to_string(tp)});
  recipe.MergeFrom(parse_recipe(c.adapter, c.name));
  return recipe;
}

class Adapters : public ::testing::TestWithParam<size_t> {
 protected:
  const Case& which() const { return cases()[GetParam()]; }
};

TEST_P(Adapters, OnAnyRanksTakeTheStepOfOne) {
  for (int zero = 0; zero <= 3; ++zero) {
    SCOPED_TRACE(fmt::format("ZeRO-{}", zero));
    expect_equal_in_float64(recipe_of(which(), zero, 1), kSteps);
  }
}

TEST_P(Adapters, AreTheSameCutByTensorParallelRanks) {
  for (int zero : {1, 3}) {
    SCOPED_TRACE(fmt::format("ZeRO-{}", zero));
    if (has_ranks_for(2)) expect_equal_in_float64(recipe_of(which(), zero, 2), kSteps);
  }
}

TEST_P(Adapters, LeaveTheBaseAsItWasAndKeepStateForTheirOwnOnly) {
  Recipe recipe = recipe_of(which(), 3, has_ranks_for(2) ? 2 : 1);
  Mesh mesh(testing::session().world(), {.tp = recipe.mesh().tp()});
  Trainer trainer(recipe, mesh);
  auto frozen = [](FlatShard& shard) { return shard.trained() ? at::Tensor() : shard.master(); };
  auto learning = [](FlatShard& shard) { return shard.trained() ? shard.master() : at::Tensor(); };
  auto base = testing::whole(trainer, frozen), adapter = testing::whole(trainer, learning);
  for (int64_t step = 1; step <= 3; ++step) trainer.step(step);
  for (const auto& [name, before] : base)
    EXPECT_TRUE(at::equal(testing::whole(trainer, frozen).at(name), before)) << name;
  int64_t unchanged = 0;
  for (const auto& [name, after] : testing::whole(trainer, learning)) unchanged += at::equal(after, adapter.at(name));
  EXPECT_EQ(unchanged, 0) << "tensors that did not learn";
  for (const Owned& owned : trainer.owned()) EXPECT_TRUE(owned.shard->trained());
  for (FlatShard* shard : trainer.model().weights().shards())
    EXPECT_EQ(shard->gradient().defined(), shard->trained()) << shard->name();
}

TEST_P(Adapters, SendWhatThePlanSays) {
  for (int zero : {1, 3}) {
    Recipe recipe = recipe_of(which(), zero, 1);
    Plan plan = plan_of(recipe, testing::session().world().size());
    Mesh mesh(testing::session().world(), {});
    Trainer trainer(recipe, mesh);
    Report report = trainer.step(1);
    EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::gradients)], plan.sent_gradients);
    EXPECT_EQ(report.bytes_sent[static_cast<int>(Purpose::parameters)], plan.sent_parameters);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Adapters, ::testing::Range<size_t>(0, cases().size()),
                         [](const auto& info) { return cases()[info.param].name; });

TEST(PartlyFrozen, ExportsTheBasesOwnBytesThoughItComputedInBfloat16) {
  std::string stem = testing::temporary_folder() + "/frozen-";
  Recipe recipe = testing::tiny_recipe("base/tiny_decoder_clm", {"steps=2"});
  Mesh mesh(testing::session().world(), {.tp = has_ranks_for(2) ? 2 : 1});
  {
    Trainer base(recipe, mesh);
    write_model_folder(stem + "base", base.model(), base.source().config);
  }
  recipe.mutable_model()->Clear();
  recipe.mutable_model()->set_load(stem + "base");
  recipe.set_precision(BF16);
  recipe.add_trainable("\\.bias$");
  ASSERT_EQ(run_training(recipe, mesh, {.folder = stem + "run"}), 0);
  SafetensorsFolder before = SafetensorsFolder::open(stem + "base"),
                    after = SafetensorsFolder::open(stem + "run/export");
  int64_t frozen = 0;
  for (const TensorEntry* entry : before.entries()) {
    const TensorEntry& exported = after.at(entry->name);
    bool same =
        entry->size() == exported.size() && std::memcmp(before.data(*entry), after.data(exported), entry->size()) == 0;
    EXPECT_EQ(same, !entry->name.ends_with(".bias")) << entry->name;
    frozen += same;
  }
  EXPECT_GT(frozen, 0);
}

TEST(AdapterSet, RefusesWhatCannotBe) {
  auto message_of = [](const std::string& lines) -> std::string {
    Recipe recipe = recipe_of({"Wrong", lines}, 3, 1);
    Session alone = Session::alone();
    Mesh mesh(alone.world(), {});
    try {
      Trainer trainer(recipe, mesh);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::recipe) << error.what();
      return error.what();
    }
    return "no error";
  };
  using ::testing::HasSubstr;
  EXPECT_THAT(message_of("adapter { [echelon/Lora] { targets: \"c_atn\" } }"), HasSubstr("did you mean \"c_attn\"?"));
  EXPECT_THAT(message_of("adapter { [echelon/Lora] { rank: 0 } }"), HasSubstr("rank"));
  EXPECT_THAT(message_of("adapter { [echelon/Lora] { rank: 4000 } }"), HasSubstr("expected 1 to "));
  EXPECT_THAT(message_of("adapter { [echelon/Lora] {} } adapter { [echelon/Ia3] {} }"),
              HasSubstr("two adapters are named \"default\""));
  EXPECT_THAT(message_of("trainable: \"nothing_like_this\""), HasSubstr("matches no tensor"));
  EXPECT_THAT(message_of("adapter { [echelon/PromptTuning] { start_ids: 100000 } }"), HasSubstr("is no token"));
  EXPECT_THAT(message_of("adapter { [echelon/PrefixTuning] { tokens: 100000 } }"), HasSubstr("positions"));
}

}  // namespace
}  // namespace echelon
