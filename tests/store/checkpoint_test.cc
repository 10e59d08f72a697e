#include <random>

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/store/stored_steps.h"

namespace echelon {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::IsEmpty;

const std::string second_file = "shard-00001-model-00002-of-00002.safetensors";

class CheckpointTest : public testing::Test {
 protected:
  Checkpoint save(int64_t bytes) {
    save_step(store_, 7, bytes);
    return open_checkpoint(store_.folder(7));
  }
  TemporaryFolder folder_;
  CheckpointStore store_{folder_.path()};
};

TEST_F(CheckpointTest, ASliceIsReadBack) {
  Checkpoint checkpoint = save(1000);
  CheckpointFile file = CheckpointFile::open(checkpoint, second_file);
  EXPECT_EQ(*file.slice(file.tensors().at("w"), 999, 1), std::byte{8});
  EXPECT_REFUSED(file.slice(file.tensors().at("w"), 999, 2), internal, "out of range");
}

TEST_F(CheckpointTest, OnlyTheTilesOfASliceAreVerified) {
  Checkpoint checkpoint = save(3 * tile_bytes);
  flip_bit(checkpoint.path(second_file), 8 * (2 * tile_bytes + 5));
  CheckpointFile file = CheckpointFile::open(checkpoint, second_file);
  const TensorEntry& w = file.tensors().at("w");
  EXPECT_NO_THROW(file.slice(w, 0, tile_bytes));
  EXPECT_REFUSED(file.slice(w, 0, w.size()), storage,
                 "tile 2 of " + second_file + " (bytes 8388608 to 12582912, written by rank 1) is damaged");
}

TEST_F(CheckpointTest, ADamagedHeaderIsFoundBeforeItIsParsed) {
  Checkpoint checkpoint = save(1000);
  flip_bit(checkpoint.path(second_file), 3);  // the header's length
  EXPECT_REFUSED(CheckpointFile::open(checkpoint, second_file), storage, "CKPT_INTEGRITY: tile 0 of " + second_file);
}

TEST_F(CheckpointTest, EveryFlippedBitIsFoundAndNamed) {
  Checkpoint checkpoint = save(2 * tile_bytes);
  int64_t size = checkpoint.manifest.find(second_file)->size;
  std::mt19937_64 random(5);
  for (int trial = 0; trial < 12; ++trial) {
    size_t bit = random() % (8 * size);
    flip_bit(checkpoint.path(second_file), bit);
    std::vector<std::string> damage = find_damage(checkpoint);
    ASSERT_EQ(damage.size(), 1u) << bit;
    EXPECT_NE(damage[0].find(fmt::format("tile {} of {}", bit / 8 / tile_bytes, second_file)), std::string::npos);
    flip_bit(checkpoint.path(second_file), bit);
  }
  EXPECT_TRUE(find_damage(checkpoint).empty());
}

TEST_F(CheckpointTest, TensorsOfADamagedTileAreNamedWhereTheHeaderIsWhole) {
  Checkpoint checkpoint = save(2 * tile_bytes);
  std::string path = checkpoint.path(second_file);
  flip_bit(path, 8 * (tile_bytes + 5));
  EXPECT_THAT(find_damage(checkpoint),
              ElementsAre("tile 1 of " + second_file +
                          " (bytes 4194304 to 8388608, written by rank 1) is damaged; it holds w"));
  flip_bit(path, 8 * 500);
  EXPECT_THAT(find_damage(checkpoint), ElementsAre(EndsWith("is damaged"), EndsWith("is damaged")));
}

TEST_F(CheckpointTest, ManyTensorsOfADamagedTileAreCounted) {
  std::string staging = store_.begin(7, 100), path = join_path(staging, second_file);
  std::vector<TensorEntry> entries;
  for (const char* name : {"a", "b", "c", "d", "e", "f", "g", "h"})
    entries.push_back({name, DType::U8, {tile_bytes / 4}});
  SafetensorsWriter writer(path, entries, {});
  for (const TensorEntry& entry : entries)
    writer.write(entry.name, std::string(tile_bytes / 4, 'x').data(), tile_bytes / 4);
  writer.finish();
  store_.commit(staging, 7, {hash_file(path)}, "");
  Checkpoint checkpoint = open_checkpoint(store_.folder(7));
  flip_bit(checkpoint.path(second_file), 8 * (tile_bytes + 5));
  EXPECT_THAT(find_damage(checkpoint), ElementsAre(EndsWith("is damaged; it holds d, e, f and 2 more")));
}

TEST_F(CheckpointTest, AFileThatIsNoLongerThereOrOfItsSizeIsDamage) {
  Checkpoint checkpoint = save(1000);
  std::string path = checkpoint.path(second_file);
  write_file_atomically(path, "short");
  EXPECT_THAT(find_damage(checkpoint), ElementsAre(second_file + " has 5 bytes, not 1104"));
  ASSERT_EQ(::unlink(path.c_str()), 0);
  EXPECT_REFUSED(find_damage(checkpoint), storage, second_file);
}

TEST_F(CheckpointTest, VerifyingStopsWithinATileOnRequest) {
  Checkpoint checkpoint = save(3 * tile_bytes);
  flip_bit(checkpoint.path("shard-00001-model-00001-of-00002.safetensors"), 8 * (2 * tile_bytes + 5));
  int asked = 0;
  VerifyOptions options{.from_disk = true, .given_up = [&] { return ++asked > 2; }};
  EXPECT_THAT(find_damage(checkpoint, options), IsEmpty());
  EXPECT_EQ(asked, 4);  // two tiles were read, then one question for each file
}

TEST_F(CheckpointTest, MissingExtraShortAndStrangeFilesAreRefused) {
  std::string path = save(1000).path(second_file), folder = store_.folder(7), bytes = contents(path);
  write_file_atomically(join_path(folder, "extra"), "x");
  EXPECT_REFUSED(open_checkpoint(folder), storage, "extra is not in the manifest");
  ASSERT_EQ(::unlink(join_path(folder, "extra").c_str()), 0);
  write_file_atomically(path, bytes.substr(1));
  EXPECT_REFUSED(open_checkpoint(folder), storage, "wrong size");
  ASSERT_EQ(::unlink(path.c_str()), 0);
  EXPECT_REFUSED(open_checkpoint(folder), storage, second_file);
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  EXPECT_REFUSED(open_checkpoint(folder), storage, "not a regular file");
}

TEST_F(CheckpointTest, AStepUnderAnotherStepsNameIsRefused) {
  save(1000);
  std::filesystem::rename(store_.folder(7), store_.folder(8));
  EXPECT_REFUSED(open_checkpoint(store_.folder(8)), storage, "the manifest is of another step: got 7, expected 8");
}

TEST_F(CheckpointTest, ACopyElsewhereOpens) {
  save(1000);
  std::filesystem::copy(store_.folder(7), folder_.at("mine"));
  EXPECT_EQ(open_checkpoint(folder_.at("mine")).step, 7);
}

TEST(StepName, HasEightDigitsOrMore) {
  EXPECT_EQ(step_name(50), "step-00000050");
  EXPECT_EQ(step_of_name("step-00000050"), 50);
  EXPECT_EQ(step_of_name(step_name(123456789012)), 123456789012);
  for (const char* name : {"step-50", "step-", "step-0000005x", "latest", "step-00000050.abc", "step--0000050"}) {
    EXPECT_EQ(step_of_name(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace echelon
