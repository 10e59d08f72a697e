// What the folders of families may hold and lack: names of old, heads, ties, strangers.
#include "tests/models/model_folders.h"

namespace echelon {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace testing;

TEST_F(ModelFolders, ReadsLegacyNamesAndIgnoresOldBuffers) {
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

TEST_F(ModelFolders, AddsTheBasePrefixThatALanguageModelOfOldLacks) {
  write_alone(path("bare"), with(config_of("gpt2"), "architectures", {"GPT2Model"}));
  change_config(path("bare"), "architectures", {"GPT2LMHeadModel"});
  ModelSource source = open_model(path("bare"));
  EXPECT_TRUE(source.architecture.head);
  EXPECT_THAT(source.warnings, ElementsAre());
}

TEST_F(ModelFolders, WithoutArchitecturesTheTensorsDecide) {
  write_alone(path("bare"), with(config_of("bert"), "architectures", {"BertModel"}));
  change_config(path("bare"), "architectures", Json(Json::value_t::discarded));
  EXPECT_FALSE(open_model(path("bare")).architecture.head);
  EXPECT_TRUE(open_model(path("bare")).architecture.pooler);
  write_alone(path("whole"), config_of("bert"));
  change_config(path("whole"), "architectures", Json(Json::value_t::discarded));
  EXPECT_TRUE(open_model(path("whole")).architecture.head);
}

TEST_F(ModelFolders, ABareEncoderWithoutPoolerHasNone) {
  write_alone(path("bare"), with(config_of("bert"), "architectures", {"BertModel"}));
  change_tensors(path("bare"), [](Tensors& tensors) {
    tensors.erase("pooler.dense.weight");
    tensors.erase("pooler.dense.bias");
  });
  EXPECT_FALSE(open_model(path("bare")).architecture.pooler);
}

TEST_F(ModelFolders, ANewHeadIsDrawnAndSaid) {
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

TEST_F(ModelFolders, EqualCopiesAreTiedAndDifferentOnesKeptApart) {
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

TEST_F(ModelFolders, ATiedModelMayHoldItsHeadOnly) {
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

TEST_F(ModelFolders, MissingAndUnexpectedTensorsAreTwoSortedLists) {
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

TEST_F(ModelFolders, AnUnexpectedTensorIsSaid) {
  write_alone(path("gpt2"), config_of("gpt2"));
  change_tensors(path("gpt2"), [](Tensors& tensors) { tensors["transformer.stranger"] = at::zeros({3}); });
  EXPECT_THAT(open_model(path("gpt2")).warnings, ElementsAre(HasSubstr("not used: transformer.stranger [3]")));
}

TEST_F(ModelFolders, AWrongShapeIsRefusedBeforeAnythingIsBuilt) {
  write_alone(path("gpt2"), config_of("gpt2"));
  change_config(path("gpt2"), "vocab_size", 24);
  EXPECT_THAT(sentence_of([&] { open_model(path("gpt2")); }),
              HasSubstr("tensor \"transformer.wte.weight\" has the wrong shape: got [23, 12], expected [24, 12]"));
}

TEST_F(ModelFolders, APickleIsRefusedByName) {
  make_folders(path("pickle"));
  write_file_atomically(path("pickle/config.json"), dump_json(config_of("gpt2")));
  write_file_atomically(path("pickle/pytorch_model.bin"), "x");
  EXPECT_THAT(sentence_of([&] { open_model(path("pickle")); }),
              HasSubstr("pytorch_model.bin: weights as a pickle are not read"));
}

}  // namespace
}  // namespace echelon
