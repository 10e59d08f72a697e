#include "runtime/store/inspect.h"

#include "runtime/store/metrics_file.h"
#include "runtime/store/roll_backs.h"
#include "runtime/store/run_folder.h"
#include "tests/store/stored_steps.h"

namespace echelon {
namespace {

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(Inspect, ListsTheTensorsOfAFile) {
  TemporaryFolder folder;
  SafetensorsWriter writer(folder.at("a.safetensors"), {{"w", DType::F32, {2, 3}}, {"packed", DType::F4, {0}}},
                           {{"format", "pt"}});
  writer.write("w", std::string(24, 'x').data(), 24);
  writer.finish();
  std::string text = inspect(folder.at("a.safetensors"), false);
  EXPECT_TRUE(says(text, "2 tensors, 6 elements, 24 B")) << text;
  EXPECT_TRUE(says(text, "  w  F32 [2, 3]\n")) << text;
  EXPECT_TRUE(says(text, "packed  F4 [0]  (Echelon does not load this dtype)")) << text;
}

TEST(Inspect, KnowsAModelFolder) {
  TemporaryFolder folder;
  SafetensorsWriter(folder.at("model.safetensors"), {}, {{"format", "pt"}}).finish();
  write_file_atomically(folder.at("config.json"), R"({"model_type": "llama"})");
  EXPECT_TRUE(says(inspect(folder.path(), false), "model folder, family llama, 1 file\n"));
}

TEST(Inspect, KnowsTokenDataByPrefixOrFile) {
  TemporaryFolder folder;
  write_file_atomically(
      folder.at("c.idx"),
      from_hex("4d4d494449445800000100000000000000080200000000000000030000000000000003000000010000000000"
               "0000000000000600000000000000000000000000000001000000000000000200000000000000"));
  write_file_atomically(folder.at("c.bin"), from_hex("0100020003000400"));
  for (const char* name : {"c", "c.idx", "c.bin"}) {
    EXPECT_TRUE(says(inspect(folder.at(name), true), "2 documents, 4 tokens (4) of type uint16\n  ids from 1 to 4"))
        << name;
  }
}

class InspectRunTest : public testing::Test {
 protected:
  InspectRunTest() {
    for (int64_t step : {50, 100}) save_step(store_, step);
    MetricsFile::open(folder_.at("metrics.jsonl"), 0).append({{"step", 100}, {"loss", 2.5}});
  }
  TemporaryFolder folder_;
  CheckpointStore store_{folder_.path()};
};

TEST_F(InspectRunTest, AWholeRunIsSaidToBeWhole) {
  std::string text = inspect(folder_.path(), true);
  EXPECT_TRUE(says(text, "metrics: 1 lines, last step 100, loss 2.5")) << text;
  EXPECT_TRUE(says(text, "step-00000100  2.16 KiB  verified")) << text;
}

TEST_F(InspectRunTest, ALossThatIsNullIsNotTheLastOne) {
  MetricsFile metrics = MetricsFile::open(folder_.at("metrics.jsonl"), 100);
  metrics.append({{"step", 101}, {"loss", nullptr}, {"skipped", true}});
  std::string text = inspect(folder_.path(), false);
  EXPECT_TRUE(says(text, "metrics: 2 lines, last step 101, loss 2.5 (of step 100)\n1 step left out")) << text;
}

TEST_F(InspectRunTest, RollBacksAreTold) {
  RollBacks roll_backs;
  roll_backs.add(107, 100, "the loss spikes", 8);
  write_file_atomically(folder_.at(kRollBacksFile), roll_backs.text());
  Inspection found = inspect_path(folder_.path(), false);
  EXPECT_TRUE(says(found.text, "rolled back from step 107 to step 100, 56 samples left out: the loss spikes"));
  EXPECT_EQ(found.json["roll_backs"][0]["first_sample"], 800);
  write_file_atomically(folder_.at(kRollBacksFile), "[{}]");
  EXPECT_REFUSED(inspect(folder_.path(), false), storage, "from_step");
}

TEST_F(InspectRunTest, WhatWasSetAsideIsTold) {
  std::string place = store_.set_aside(50);
  Inspection found = inspect_path(folder_.path(), true);
  EXPECT_TRUE(says(found.text, "1 checkpoint\n")) << found.text;
  EXPECT_TRUE(says(found.text, "set aside: " + place)) << found.text;
  EXPECT_EQ(found.json["set_aside"], Json::array({name_of_file(place)}));
}

TEST_F(InspectRunTest, AFlippedBitIsFoundByVerifyingOnly) {
  std::string file = "shard-00001-model-00001-of-00002.safetensors";
  flip_bit(join_path(store_.folder(50), file), 8 * 700);
  EXPECT_NO_THROW(inspect(folder_.path(), false));
  EXPECT_REFUSED(inspect(folder_.path(), true), storage,
                 "tile 0 of " + file + " (bytes 0 to 1104, written by rank 0) is damaged");
  EXPECT_REFUSED(inspect(store_.folder(50), true), storage, "tile 0 of " + file);
  EXPECT_NO_THROW(inspect(store_.folder(100), true));
}

TEST_F(InspectRunTest, OneDamagedCheckpointDoesNotHideTheOthers) {
  write_file_atomically(join_path(store_.folder(50), "manifest.json"), "{}");
  Inspection found = inspect_path(folder_.path(), false);
  EXPECT_EQ(found.damage.size(), 1u);
  EXPECT_EQ(found.json["checkpoints"].size(), 2u);
  EXPECT_TRUE(says(found.text, "step-00000100"));
  EXPECT_EQ(damage_error(folder_.path(), found).exit_code(), 5);
}

TEST_F(InspectRunTest, LatestLeadsToTheCheckpointItNames) {
  std::string latest = folder_.at("checkpoints/latest");
  EXPECT_EQ(inspect(latest, true), inspect(store_.folder(100), true));
  flip_bit(join_path(store_.folder(100), "shard-00001-model-00001-of-00002.safetensors"), 8 * 700);
  EXPECT_REFUSED(inspect(latest, true), storage, "tile 0 of shard-00001");
  write_file_atomically(latest, "../../elsewhere\n");
  EXPECT_REFUSED(inspect(latest, false), storage, "names no checkpoint");
  write_file_atomically(latest, "step-00000777\n");
  EXPECT_REFUSED(inspect(latest, false), storage, "step-00000777");
}

TEST_F(InspectRunTest, ARunInUseIsSaidToBe) {
  RunFolder run = RunFolder::hold(folder_.path());
  EXPECT_TRUE(says(inspect(folder_.path(), false), "run folder, in use by process "));
}

TEST(Inspect, DamagedInputIsAnInputError) {
  TemporaryFolder folder;
  write_file_atomically(folder.at("a.safetensors"), "short");
  EXPECT_REFUSED(inspect(folder.at("a.safetensors"), false), input, "shorter than 8 bytes");
  EXPECT_REFUSED(inspect(folder.at("none"), false), input, "no such file or folder");
  EXPECT_REFUSED(inspect(folder.path(), false), input, "neither model.safetensors nor");
}

}  // namespace
}  // namespace echelon
