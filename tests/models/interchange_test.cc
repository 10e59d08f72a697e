// Hugging Face folders in and out, held against ourselves; tests/interop holds them against transformers.
#include "models/interchange/interchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include <ATen/ATen.h>

#include "cluster/base/files.h"
#include "cluster/base/safetensors.h"
#include "comm/session.h"
#include "models/interchange/config_writer.h"
#include "models/interchange/tensor_list.h"

namespace echelon {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Tensors = std::map<std::string, at::Tensor>;

class Interchange : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("echelon-interchange-{}", random_name());
    make_folders(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return join_path(folder_, name); }

  std::string folder_;
};

Json config_of(const std::string& family, std::optional<bool> tied = {}) {
  ModelShape shape{
      .layers = 2, .width = 12, .heads = 4, .feed_forward = 20, .vocabulary = 23, .positions = 9, .tied = tied};
  if (family == "llama") {
    shape.kv_heads = 2;
    shape.head_width = 6;
  }
  return config_of_shape(family, shape);
}

Json with(Json config, const std::string& key, Json value) {
  config[key] = std::move(value);
  return config;
}

std::string sentence_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

ModelSource source_of(const Json& config) { return model_from_config(config, "config.json"); }

/// Every tensor, those that start at a constant too, gets its own values: a swap of two must show.
class Distinct : public TensorReader {
 public:
  explicit Distinct(const Architecture& architecture) {
    for (const NamedShape& tensor : tensors_of(architecture)) sizes_[tensor.name] = tensor.sizes;
  }
  bool has(const std::string& name) const override { return sizes_.contains(name); }
  at::Tensor read(const std::string& name, const Slice& slice) override {
    return keyed_normal(Seed(7).with(name), sizes_.at(name), slice);
  }

 private:
  std::map<std::string, std::vector<int64_t>> sizes_;
};

/// Writes a model with distinct values from `world`.
void write(const Group& world, const std::string& folder, const Json& config, MeshShape shape,
           const FolderOptions& options = {}) {
  ModelSource source = source_of(config);
  Mesh mesh(world, shape);
  Zero zero(mesh, {});
  Model model(source.architecture, zero);
  model.allocate();
  Distinct values(source.architecture);
  model.weights().load(values);
  write_model_folder(folder, model, source.config, options);
}

void write_alone(const std::string& folder, const Json& config, const FolderOptions& options = {}) {
  Session session = Session::alone();
  write(session.world(), folder, config, {}, options);
}

Tensors read_tensors(const std::string& folder) {
  SafetensorsFolder files = SafetensorsFolder::open(folder);
  Tensors tensors;
  for (const TensorEntry* entry : files.entries()) {
    at::Tensor values = at::empty(entry->shape, at::kFloat);
    std::memcpy(values.data_ptr(), files.data(*entry), entry->size());
    tensors[entry->name] = values;
  }
  return tensors;
}

void write_tensors(const std::string& folder, const Tensors& tensors) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, values] : tensors)
    entries.push_back({.name = name, .dtype = DType::F32, .shape = values.sizes().vec()});
  SafetensorsWriter writer(join_path(folder, "model.safetensors"), entries, {});
  for (const auto& [name, values] : tensors) {
    at::Tensor flat = values.contiguous();
    writer.write(name, flat.const_data_ptr(), flat.nbytes());
  }
  writer.finish();
}

/// Reads a folder's tensors, lets `change` change them, writes them back.
void change_tensors(const std::string& folder, const std::function<void(Tensors&)>& change) {
  Tensors tensors = read_tensors(folder);
  for (auto& [name, values] : tensors) values = values.clone();
  change(tensors);
  write_tensors(folder, tensors);
}

void change_config(const std::string& folder, const std::string& key, Json value) {
  std::string file = join_path(folder, "config.json");
  Json config = parse_json(read_file(file, Error::Kind::input, 1 << 20), file);
  if (value.is_discarded())
    config.erase(key);
  else
    config[key] = std::move(value);
  write_file_atomically(file, dump_json(config, 2));
}

const Json kErased = Json(Json::value_t::discarded);

std::vector<Json> all_configs() {
  std::vector<Json> configs;
  for (const std::string& family : model_families()) {
    for (bool tied : {false, true}) configs.push_back(config_of(family, tied));
  }
  configs.push_back(with(config_of("gpt2"), "architectures", {"GPT2Model"}));
  configs.push_back(with(config_of("llama"), "architectures", {"LlamaModel"}));
  configs.push_back(with(config_of("bert"), "architectures", {"BertModel"}));
  configs.push_back(with(with(config_of("llama"), "attention_bias", true), "mlp_bias", true));
  configs.push_back(with(config_of("llama"), "head_dim", 4));
  return configs;
}

TEST_F(Interchange, ListsTheTensorsThatTheModelDeclares) {
  Session session = Session::alone();
  for (const Json& config : all_configs()) {
    ModelSource source = source_of(config);
    Mesh mesh(session.world(), {});
    Zero zero(mesh, {});
    Model model(source.architecture, zero);
    model.allocate();
    std::vector<NamedShape> listed = tensors_of(source.architecture);
    auto declared = model.weights().parameters();
    ASSERT_EQ(listed.size(), declared.size()) << config;
    for (const NamedShape& tensor : listed)
      EXPECT_EQ(model.weights().at(tensor.name).layout().sizes, tensor.sizes) << tensor.name;
    EXPECT_EQ(static_cast<double>(model.weights().elements()), count_elements(source.architecture));
  }
}

TEST_F(Interchange, EverySliceOfEveryTensorIsWhatWasWritten) {
  for (const Json& config : all_configs()) {
    std::string folder = path("model");
    write_alone(folder, config);
    ModelSource source = open_model(folder);
    EXPECT_THAT(source.warnings, ElementsAre());
    Distinct expected(source.architecture);
    for (const NamedShape& tensor : tensors_of(source.architecture)) {
      for (int64_t draw = 0; draw < 5; ++draw) {
        Slice slice = Slice::whole(tensor.sizes);
        for (size_t dim = 0; draw > 0 && dim < slice.sizes.size(); ++dim) {
          slice.offsets[dim] = Seed(draw).with(tensor.name).integer(dim, tensor.sizes[dim]);
          slice.sizes[dim] = 1 + Seed(draw).with(tensor.name).integer(dim + 9, tensor.sizes[dim] - slice.offsets[dim]);
        }
        at::Tensor read = source.reader->read(tensor.name, slice);
        EXPECT_TRUE(at::equal(read, expected.read(tensor.name, slice).to(at::kFloat))) << tensor.name;
      }
    }
  }
}

TEST_F(Interchange, RanksWriteTheFilesOfOne) {
  for (const Json& config : all_configs()) {
    FolderOptions options{.max_shard_bytes = 2000};
    write_alone(path("one"), config, options);
    run_thread_ranks(4, [&](const Group& world) { write(world, path("four"), config, {.dp = 2, .tp = 2}, options); });
    std::vector<std::string> names = list_folder(path("one"));
    EXPECT_EQ(names, list_folder(path("four")));
    EXPECT_GT(names.size(), 4u);
    for (const std::string& name : names) {
      EXPECT_EQ(read_file(join_path(path("one"), name), Error::Kind::input, 1 << 20),
                read_file(join_path(path("four"), name), Error::Kind::input, 1 << 20))
          << name;
    }
  }
}

TEST_F(Interchange, RanksReadTheirSlicesOfAFolder) {
  for (const Json& config : all_configs()) {
    write_alone(path("model"), config);
    run_thread_ranks(4, [&](const Group& world) {
      ModelSource source = open_model(path("model"));
      Mesh mesh(world, {.dp = 2, .tp = 2});
      Zero zero(mesh, {});
      Model model(source.architecture, zero);
      model.allocate();
      load_weights(model, source, Seed(0));
      Distinct expected(source.architecture);
      model.weights().visit_whole([](FlatShard& shard) { return shard.master(); },
                                  [&](const Parameter& parameter, const at::Tensor& whole) {
                                    at::Tensor values =
                                        expected.read(parameter.name(), Slice::whole(parameter.layout().sizes));
                                    EXPECT_TRUE(at::equal(whole, values.to(at::kFloat))) << parameter.name();
                                  });
    });
  }
}

TEST_F(Interchange, WritesNamesAsTransformersDoes) {
  write_alone(path("gpt2"), config_of("gpt2"));
  Tensors gpt2 = read_tensors(path("gpt2"));
  EXPECT_EQ(gpt2.at("transformer.h.1.attn.c_attn.weight").sizes().vec(), (std::vector<int64_t>{12, 36}));
  EXPECT_FALSE(gpt2.contains("lm_head.weight"));
  write_alone(path("bare"), with(config_of("gpt2"), "architectures", {"GPT2Model"}));
  EXPECT_TRUE(read_tensors(path("bare")).contains("h.0.ln_1.weight"));
  write_alone(path("bert"), config_of("bert", false));
  Tensors bert = read_tensors(path("bert"));
  EXPECT_TRUE(at::equal(bert.at("cls.predictions.bias"), bert.at("cls.predictions.decoder.bias")));
}

TEST_F(Interchange, ReadsLegacyNamesAndIgnoresOldBuffers) {
  write_alone(path("bert"), config_of("bert"));
  change_tensors(path("bert"), [](Tensors& tensors) {
    Tensors renamed{{"bert.embeddings.position_ids", at::zeros({1, 9})}};
    for (const auto& [name, values] : tensors) {
      std::string legacy = name;
      if (size_t at = name.find("LayerNorm.weight"); at != std::string::npos) legacy.replace(at, 16, "LayerNorm.gamma");
      if (size_t at = name.find("LayerNorm.bias"); at != std::string::npos) legacy.replace(at, 14, "LayerNorm.beta");
      renamed[legacy] = values;
    }
    tensors = renamed;
  });
  EXPECT_THAT(open_model(path("bert")).warnings, ElementsAre());
}

TEST_F(Interchange, AddsTheBasePrefixThatALanguageModelOfOldLacks) {
  write_alone(path("bare"), with(config_of("gpt2"), "architectures", {"GPT2Model"}));
  change_config(path("bare"), "architectures", {"GPT2LMHeadModel"});
  ModelSource source = open_model(path("bare"));
  EXPECT_TRUE(source.architecture.head);
  EXPECT_THAT(source.warnings, ElementsAre());
}

TEST_F(Interchange, WithoutArchitecturesTheTensorsDecide) {
  write_alone(path("bare"), with(config_of("bert"), "architectures", {"BertModel"}));
  change_config(path("bare"), "architectures", kErased);
  EXPECT_FALSE(open_model(path("bare")).architecture.head);
  EXPECT_TRUE(open_model(path("bare")).architecture.pooler);
  write_alone(path("whole"), config_of("bert"));
  change_config(path("whole"), "architectures", kErased);
  EXPECT_TRUE(open_model(path("whole")).architecture.head);
}

TEST_F(Interchange, ABareEncoderWithoutPoolerHasNone) {
  write_alone(path("bare"), with(config_of("bert"), "architectures", {"BertModel"}));
  change_tensors(path("bare"), [](Tensors& tensors) {
    tensors.erase("pooler.dense.weight");
    tensors.erase("pooler.dense.bias");
  });
  EXPECT_FALSE(open_model(path("bare")).architecture.pooler);
}

TEST_F(Interchange, ANewHeadIsDrawnAndSaid) {
  write_alone(path("bare"), with(config_of("bert"), "architectures", {"BertModel"}));
  ModelSource source = open_model(path("bare"), {.language_head = true});
  EXPECT_TRUE(source.architecture.head);
  EXPECT_THAT(source.drawn, ElementsAre("head.transform.weight", "head.transform.bias", "head.norm.weight",
                                        "head.norm.bias", "head.bias"));
  EXPECT_THAT(source.warnings,
              Contains(HasSubstr("cls.predictions.transform.dense.weight [12, 12] is missing; it starts normally "
                                 "distributed with standard deviation 0.02")));
  Session session = Session::alone();
  Mesh mesh(session.world(), {});
  Zero zero(mesh, {});
  Model model(source.architecture, zero);
  model.allocate();
  load_weights(model, source, Seed(3));
  model.weights().visit_whole([](FlatShard& shard) { return shard.master(); },
                              [&](const Parameter& parameter, const at::Tensor& whole) {
                                if (parameter.name() == "head.norm.weight") {
                                  EXPECT_TRUE(at::equal(whole, at::ones({12})));
                                } else if (parameter.name() == "head.transform.weight") {
                                  EXPECT_GT(whole.abs().max().item<float>(), 0);
                                }
                              });
}

TEST_F(Interchange, EqualCopiesAreTiedAndDifferentOnesKeptApart) {
  write_alone(path("gpt2"), config_of("gpt2"));
  change_tensors(path("gpt2"),
                 [](Tensors& tensors) { tensors["lm_head.weight"] = tensors.at("transformer.wte.weight"); });
  EXPECT_TRUE(open_model(path("gpt2")).architecture.tied);
  EXPECT_THAT(open_model(path("gpt2")).warnings, ElementsAre());
  change_tensors(path("gpt2"), [](Tensors& tensors) { tensors["lm_head.weight"][0][0] += 1; });
  ModelSource apart = open_model(path("gpt2"));
  EXPECT_FALSE(apart.architecture.tied);
  EXPECT_EQ(apart.config.at("tie_word_embeddings"), false);
  EXPECT_THAT(apart.warnings, ElementsAre(HasSubstr("both are kept, apart")));
}

TEST_F(Interchange, ATiedModelMayHoldItsHeadOnly) {
  write_alone(path("gpt2"), config_of("gpt2"));
  at::Tensor tokens = read_tensors(path("gpt2")).at("transformer.wte.weight").clone();
  change_tensors(path("gpt2"), [&](Tensors& tensors) {
    tensors.erase("transformer.wte.weight");
    tensors["lm_head.weight"] = tokens;
  });
  ModelSource source = open_model(path("gpt2"));
  EXPECT_TRUE(source.architecture.tied);
  EXPECT_TRUE(at::equal(source.reader->read("embeddings.tokens.weight", Slice::whole({23, 12})), tokens));
}

TEST_F(Interchange, MissingAndUnexpectedTensorsAreTwoSortedLists) {
  write_alone(path("gpt2"), config_of("gpt2"));
  change_tensors(path("gpt2"), [](Tensors& tensors) {
    tensors.erase("transformer.wpe.weight");
    tensors.erase("transformer.h.0.attn.c_attn.bias");
    tensors["transformer.stranger"] = at::zeros({3});
  });
  std::string sentence = sentence_of([&] { open_model(path("gpt2")); });
  EXPECT_THAT(sentence, HasSubstr("missing: transformer.h.0.attn.c_attn.bias [36], transformer.wpe.weight [9, 12]; "
                                  "and not expected: transformer.stranger [3]"));
}

TEST_F(Interchange, AnUnexpectedTensorIsSaid) {
  write_alone(path("gpt2"), config_of("gpt2"));
  change_tensors(path("gpt2"), [](Tensors& tensors) { tensors["transformer.stranger"] = at::zeros({3}); });
  EXPECT_THAT(open_model(path("gpt2")).warnings, ElementsAre(HasSubstr("not used: transformer.stranger [3]")));
}

TEST_F(Interchange, AWrongShapeIsRefusedBeforeAnythingIsBuilt) {
  write_alone(path("gpt2"), config_of("gpt2"));
  change_config(path("gpt2"), "vocab_size", 24);
  EXPECT_THAT(sentence_of([&] { open_model(path("gpt2")); }),
              HasSubstr("tensor \"transformer.wte.weight\" has the wrong shape: got [23, 12], expected [24, 12]"));
}

TEST_F(Interchange, APickleIsRefusedByName) {
  make_folders(path("pickle"));
  write_file_atomically(path("pickle/config.json"), dump_json(config_of("gpt2")));
  write_file_atomically(path("pickle/pytorch_model.bin"), "x");
  EXPECT_THAT(sentence_of([&] { open_model(path("pickle")); }),
              HasSubstr("pytorch_model.bin: weights as a pickle are not read"));
}

TEST_F(Interchange, AnEarlierModelIsReplacedAndAnythingElseIsNot) {
  write_alone(path("out"), config_of("gpt2"), {.max_shard_bytes = 2000});
  write_alone(path("out"), config_of("llama"));
  EXPECT_THAT(list_folder(path("out")), ElementsAre("config.json", "generation_config.json", "model.safetensors"));
  write_file_atomically(path("out/diary.txt"), "dear");
  EXPECT_THAT(sentence_of([&] { write_alone(path("out"), config_of("gpt2")); }), HasSubstr("holds \"diary.txt\""));
  EXPECT_THAT(list_folder(folder_), ElementsAre("out"));
}

TEST_F(Interchange, AFailureOnOneRankIsEverybodysAndLeavesNothing) {
  write_file_atomically(path("file"), "in the way");
  run_thread_ranks(2, [&](const Group& world) {
    EXPECT_THAT(sentence_of([&] { write(world, path("file"), config_of("gpt2"), {}); }), HasSubstr("is not a folder"));
  });
  EXPECT_THAT(list_folder(folder_), ElementsAre("file"));
}

TEST_F(Interchange, TokenizerFilesAreCopiedThrough) {
  make_folders(path("tokenizer"));
  write_file_atomically(path("tokenizer/tokenizer.json"), "{\"version\":  \"1.0\"}");
  write_file_atomically(path("tokenizer/notes.txt"), "no part of it");
  write_alone(path("out"), config_of("bert"), {.tokenizer_from = path("tokenizer")});
  EXPECT_THAT(list_folder(path("out")), ElementsAre("config.json", "model.safetensors", "tokenizer.json"));
  EXPECT_EQ(read_file(path("out/tokenizer.json"), Error::Kind::input, 100), "{\"version\":  \"1.0\"}");
  EXPECT_EQ(open_model(path("out")).tokenizer_folder, path("out"));
}

TEST_F(Interchange, ValuesBeyondFloat16AreNotWrittenAsInfinity) {
  Session session = Session::alone();
  ModelSource source = source_of(config_of("gpt2"));
  Mesh mesh(session.world(), {});
  Zero zero(mesh, {});
  Model model(source.architecture, zero);
  model.allocate();
  for (FlatShard* shard : model.weights().shards()) shard->master().fill_(1e6);
  EXPECT_THAT(sentence_of([&] { write_model_folder(path("half"), model, source.config, {.dtype = at::kHalf}); }),
              HasSubstr("beyond float16"));
  EXPECT_FALSE(exists(path("half")));
}

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
