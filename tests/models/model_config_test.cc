// Configs of families: what is read, kept, refused, and their defaults.
#include "tests/models/model_folders.h"

namespace echelon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace testing;

TEST(ModelConfig, FloatsStayFloatsAndStrangersStay) {
  Json config = with(with(config_of("llama"), "rope_theta", 10000), "house_key", Json{{"a", 1}});
  config.erase("rope_parameters");
  std::string text = config_text(source_of(config).config, at::kFloat);
  for (const char* line :
       {"\"rope_theta\": 10000.0", "\"rms_norm_eps\": 1e-06", "\"attention_dropout\": 0.0", "\"dtype\": \"float32\"",
        "\"torch_dtype\": \"float32\"", "\"rope_scaling\": null", "\"house_key\": {\n    \"a\": 1\n  }"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
}

TEST(ModelConfig, BothSpellingsOfRotaryPositionsAreRead) {
  Json old = with(config_of("llama"), "rope_theta", 500.0);
  old.erase("rope_parameters");
  old["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  Json now = config_of("llama");
  now.erase("rope_theta");
  now.erase("rope_scaling");
  now["rope_parameters"] = {{"rope_type", "linear"}, {"rope_theta", 500.0}, {"factor", 2.0}};
  for (const Json& config : {old, now}) {
    ModelSource source = source_of(config);
    EXPECT_EQ(source.architecture.rope_theta, 500);
    EXPECT_EQ(source.architecture.rope_linear_factor, 2);
    EXPECT_THAT(source.warnings, ElementsAre());
    EXPECT_EQ(source.config.at("rope_scaling").at("factor"), 2.0);
    EXPECT_EQ(source.config.at("rope_parameters").at("rope_theta"), 500.0);
  }
  ModelSource conflict = source_of(with(now, "rope_theta", 10.0));
  EXPECT_EQ(conflict.architecture.rope_theta, 500);
  EXPECT_THAT(conflict.warnings, ElementsAre(HasSubstr("rope_parameters is used")));
}

TEST(ModelConfig, WhatChangesTheMathsAndIsNotThereIsRefusedByName) {
  struct Case {
    const char* family;
    const char* key;
    Json value;
    const char* sentence;
  };
  const Case cases[] = {
      {"gpt2", "scale_attn_by_inverse_layer_idx", true, "scale_attn_by_inverse_layer_idx: not implemented"},
      {"gpt2", "scale_attn_weights", false, "scale_attn_weights: not implemented"},
      {"gpt2", "add_cross_attention", true, "add_cross_attention: not implemented"},
      {"gpt2", "activation_function", "tanh", "activation_function: activation is not implemented: got tanh"},
      {"gpt2",
       "architectures",
       {"GPT2ForSequenceClassification"},
       "class is not implemented: got GPT2ForSequenceClassification"},
      {"gpt2", "quantization_config", {{"bits", 4}}, "quantization_config: not implemented"},
      {"gpt2", "n_embd", 10, "n_embd: is not a multiple of n_head: got 10"},
      {"gpt2", "n_embd", int64_t{1} << 31, "n_embd: out of range"},
      {"gpt2", "n_layer", -1, "n_layer: out of range"},
      {"gpt2", "n_embd", 12.0, "n_embd: wrong type: got 12.0, expected an integer"},
      {"gpt2", "resid_pdrop", 1.0, "resid_pdrop: out of range"},
      {"gpt2", "n_embd", 2'000'000'000, "a model of"},
      {"gpt2", "model_type", "gpt3", "unknown family \"gpt3\", expected one of bert, gpt2, llama"},
      {"bert", "position_embedding_type", "relative_key", "position_embedding_type: not implemented"},
      {"bert", "is_decoder", true, "is_decoder: not implemented"},
      {"llama", "num_key_value_heads", 3, "num_key_value_heads: does not divide num_attention_heads: got 3"},
      {"llama", "head_dim", 3, "head_dim: must be even"},
      {"llama", "rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}, "rope type is not implemented: got yarn"},
      {"llama", "tie_word_embeddings", 1, "tie_word_embeddings: wrong type"},
  };
  for (const Case& each : cases) {
    Json config = config_of(each.family);
    EXPECT_THAT(sentence_of([&] { source_of(with(config, each.key, each.value)); }), HasSubstr(each.sentence))
        << each.key;
  }
}

TEST(ModelConfig, AShapeThatNoFamilyHasIsARecipeError) {
  EXPECT_THAT(sentence_of([] { config_of_shape("gpt5", {}); }),
              HasSubstr("recipe: model.architecture: family: unknown family"));
  EXPECT_THAT(sentence_of([] { config_of_shape("gpt2", {.width = 10, .heads = 4}); }),
              HasSubstr("recipe: model.architecture: n_embd"));
  EXPECT_THAT(sentence_of([] { config_of_shape("llama", {.dropout = 0.1}); }), HasSubstr("attention dropout only"));
}

TEST(ModelConfig, DefaultsAreThoseOfTheFamily) {
  Architecture gpt2 = source_of(config_of_shape("gpt2", {})).architecture;
  EXPECT_NEAR(count_elements(gpt2), 124'439'808, 0.5);  // GPT-2 as published
  EXPECT_TRUE(gpt2.tied && gpt2.scale_residual_init && gpt2.causal);
  EXPECT_EQ(gpt2.dropout, 0);
  Architecture bert = source_of(config_of_shape("bert", {})).architecture;
  EXPECT_NEAR(count_elements(bert), 109'514'298, 0.5);  // BertForMaskedLM, base
  Architecture llama = source_of(config_of_shape("llama", {.feed_forward = 11008})).architecture;
  EXPECT_NEAR(count_elements(llama), 6'738'415'616, 0.5);  // Llama 7B
  EXPECT_FALSE(llama.tied);
}

TEST(ModelConfig, TheTokenOfPaddingIsTheEmbeddingsPaddingIndex) {
  EXPECT_EQ(source_of(config_of("bert")).architecture.padding_id, -1);
  EXPECT_EQ(source_of(with(config_of("bert"), "pad_token_id", 3)).architecture.padding_id, 3);
  EXPECT_EQ(source_of(with(config_of("llama"), "pad_token_id", -1)).architecture.padding_id, 22);
  Json silent = config_of("bert");
  silent.erase("pad_token_id");
  EXPECT_EQ(source_of(silent).architecture.padding_id, 0);
}

TEST(TensorParallel, MustDivideTheHeads) {
  Architecture llama = source_of(config_of("llama")).architecture;
  EXPECT_NO_THROW(check_tensor_parallel(llama, 2));
  EXPECT_THAT(sentence_of([&] { check_tensor_parallel(llama, 4); }),
              HasSubstr("does not divide 4 attention heads and 2 key heads, expected 1, 2"));
}

}  // namespace
}  // namespace echelon
