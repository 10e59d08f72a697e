#include "tests/store/stored_steps.h"

namespace echelon {
namespace {

class CheckpointStoreTest : public testing::Test {
 protected:
  void damage(int64_t step) { flip_bit(join_path(store_.folder(step), "manifest.json"), 100); }
  TemporaryFolder folder_;
  CheckpointStore store_{folder_.path()};
};

using Steps = std::vector<int64_t>;

TEST_F(CheckpointStoreTest, ANewRunHasNothingToRecover) { EXPECT_EQ(store_.recover(), std::nullopt); }

TEST_F(CheckpointStoreTest, TheNewestStepIsRecovered) {
  Manifest first = save_step(store_, 50), second = save_step(store_, 100);
  std::optional<Checkpoint> found = store_.recover();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->step, 100);
  EXPECT_TRUE(found->passed_over.empty());
  EXPECT_EQ(second.previous_root, first.root);
  EXPECT_EQ(contents(folder_.at("checkpoints/latest")), "step-00000100\n");
}

TEST_F(CheckpointStoreTest, NothingIsVisibleBeforeTheCommit) {
  std::string staging = store_.begin(50, 1000);
  write_rank_file(staging, 0, 'x');
  EXPECT_TRUE(store_.steps().empty());
  store_.abandon(staging);
  EXPECT_TRUE(list_folder(folder_.at("inflight")).empty());
}

TEST_F(CheckpointStoreTest, ADamagedStepIsPassedOverAndSaidSo) {
  save_step(store_, 50);
  save_step(store_, 100);
  damage(100);
  std::optional<Checkpoint> found = store_.recover();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->step, 50);
  ASSERT_EQ(found->passed_over.size(), 1u);
  EXPECT_NE(found->passed_over[0].find("step-00000100: storage:"), std::string::npos) << found->passed_over[0];
}

TEST_F(CheckpointStoreTest, ARunWithStepsNeverStartsAgainFromZero) {
  save_step(store_, 50);
  damage(50);
  EXPECT_REFUSED(store_.recover(), storage, "none of the checkpoints is whole: step-00000050");
  EXPECT_REFUSED(store_.recover(50), storage, "none of the checkpoints below step 50 is whole");
}

TEST_F(CheckpointStoreTest, AStoreThatCannotBeReadIsNotANewRun) {
  write_file_atomically(folder_.at("checkpoints"), "a file in place of the folder");
  EXPECT_REFUSED(store_.recover(), storage, "cannot list");
}

TEST_F(CheckpointStoreTest, ANewerStepCanBeLeftOut) {
  for (int64_t step : {50, 100, 150}) save_step(store_, step);
  EXPECT_EQ(store_.recover(150)->step, 100);
}

TEST_F(CheckpointStoreTest, VotesMustMatchTheFolder) {
  std::string staging = store_.begin(50, 1000);
  FileRecord vote = write_rank_file(staging, 0, 'x'), other = vote;
  other.name = "missing.safetensors";
  EXPECT_REFUSED(store_.commit(staging, 50, {vote, other}, ""), storage,
                 "missing.safetensors: cannot find what was voted for");
  other = vote;
  other.size += 1;
  EXPECT_REFUSED(store_.commit(staging, 50, {other}, ""), storage, "not what was voted for");
  EXPECT_REFUSED(store_.commit(staging, 50, {}, ""), storage, "nobody voted for this file");
  EXPECT_TRUE(store_.steps().empty());
  store_.commit(staging, 50, {vote}, "");
  EXPECT_EQ(store_.steps(), Steps{50});
}

TEST_F(CheckpointStoreTest, AWholeStepIsNeverReplaced) {
  save_step(store_, 50);
  EXPECT_REFUSED(save_step(store_, 50), storage, "already committed and whole");
}

TEST_F(CheckpointStoreTest, ADamagedStepMakesWayAndIsKeptAside) {
  save_step(store_, 50);
  flip_bit(join_path(store_.folder(50), "shard-00001-model-00001-of-00002.safetensors"), 8 * 500);
  save_step(store_, 50);
  EXPECT_TRUE(find_damage(open_checkpoint(store_.folder(50))).empty());
  EXPECT_EQ(list_folder(folder_.at("damaged")).size(), 1u);
}

TEST_F(CheckpointStoreTest, TheNewestAndThePinnedAreKept) {
  for (int64_t step : {10, 20, 30, 40, 50}) save_step(store_, step);
  EXPECT_EQ(store_.retire(2, {20}), (Steps{30, 10}));
  EXPECT_EQ(store_.steps(), (Steps{20, 40, 50}));
  EXPECT_TRUE(list_folder(folder_.at("trash")).empty());
}

TEST_F(CheckpointStoreTest, AtLeastTwoWholeStepsAreKeptHoweverFewAreAskedFor) {
  for (int64_t step : {10, 20, 30, 40}) save_step(store_, step);
  damage(40);
  EXPECT_EQ(store_.retire(1), Steps{10});
  EXPECT_EQ(store_.steps(), (Steps{20, 30, 40}));
}

TEST_F(CheckpointStoreTest, CleaningRemovesGarbageOnly) {
  save_step(store_, 10);
  write_rank_file(store_.begin(20, 1000), 0, 'x');
  make_folders(folder_.at("trash/step-00000005.abc"));
  store_.clean();
  EXPECT_TRUE(list_folder(folder_.at("inflight")).empty());
  EXPECT_TRUE(list_folder(folder_.at("trash")).empty());
  EXPECT_EQ(store_.steps(), Steps{10});
}

TEST_F(CheckpointStoreTest, TooLittleSpaceIsSaidBeforeAnythingIsWritten) {
  EXPECT_REFUSED(store_.begin(50, int64_t{1} << 60), storage, "no space left for a checkpoint");
  EXPECT_TRUE(list_folder(folder_.at("inflight")).empty());
}

TEST_F(CheckpointStoreTest, OnlyAStagingFolderCanBeAbandoned) {
  save_step(store_, 10);
  EXPECT_REFUSED(store_.abandon(store_.folder(10)), internal, "not a staging folder");
}

}  // namespace
}  // namespace echelon
