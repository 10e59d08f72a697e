// Hugging Face folders in and out, held against ourselves; tests/interop holds them against transformers.
#include "tests/models/model_folders.h"

namespace echelon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace testing;

TEST_F(ModelFolders, ListsTheTensorsThatTheModelDeclares) {
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

TEST_F(ModelFolders, EverySliceOfEveryTensorIsWhatWasWritten) {
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

TEST_F(ModelFolders, RanksWriteTheFilesOfOne) {
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

TEST_F(ModelFolders, RanksReadTheirSlicesOfAFolder) {
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

TEST_F(ModelFolders, WritesNamesAsTransformersDoes) {
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

TEST_F(ModelFolders, AnEarlierModelIsReplacedAndAnythingElseIsNot) {
  write_alone(path("out"), config_of("gpt2"), {.max_shard_bytes = 2000});
  write_alone(path("out"), config_of("llama"));
  EXPECT_THAT(list_folder(path("out")), ElementsAre("config.json", "generation_config.json", "model.safetensors"));
  write_file_atomically(path("out/diary.txt"), "dear");
  EXPECT_THAT(sentence_of([&] { write_alone(path("out"), config_of("gpt2")); }), HasSubstr("holds \"diary.txt\""));
  EXPECT_THAT(list_folder(folder_), ElementsAre("out"));
}

TEST_F(ModelFolders, AFailureOnOneRankIsEverybodysAndLeavesNothing) {
  write_file_atomically(path("file"), "in the way");
  run_thread_ranks(2, [&](const Group& world) {
    EXPECT_THAT(sentence_of([&] { write(world, path("file"), config_of("gpt2"), {}); }), HasSubstr("is not a folder"));
  });
  EXPECT_THAT(list_folder(folder_), ElementsAre("file"));
}

TEST_F(ModelFolders, TokenizerFilesAreCopiedThrough) {
  make_folders(path("tokenizer"));
  write_file_atomically(path("tokenizer/tokenizer.json"), "{\"version\":  \"1.0\"}");
  write_file_atomically(path("tokenizer/notes.txt"), "no part of it");
  write_alone(path("out"), config_of("bert"), {.tokenizer_from = path("tokenizer")});
  EXPECT_THAT(list_folder(path("out")), ElementsAre("config.json", "model.safetensors", "tokenizer.json"));
  EXPECT_EQ(read_file(path("out/tokenizer.json"), Error::Kind::input, 100), "{\"version\":  \"1.0\"}");
  EXPECT_EQ(open_model(path("out")).tokenizer_folder, path("out"));
}

TEST_F(ModelFolders, ValuesBeyondFloat16AreNotWrittenAsInfinity) {
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

}  // namespace
}  // namespace echelon
