#include "runtime/store/scrub.h"

#include <chrono>
#include <thread>

#include <gmock/gmock.h>

#include "runtime/store/lease.h"
#include "tests/store/stored_steps.h"

namespace echelon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const std::string first_file = "shard-00001-model-00001-of-00002.safetensors";

class ScrubTest : public testing::Test {
 protected:
  void save(std::initializer_list<int64_t> steps) {
    for (int64_t step : steps) save_step(store_, step);
  }
  void damage(int64_t step) { flip_bit(join_path(store_.folder(step), first_file), 8 * 500); }
  std::vector<int64_t> steps() const { return store_.steps(); }

  TemporaryFolder folder_;
  CheckpointStore store_{folder_.path()};
  Scrub scrub_{store_};
};

TEST_F(ScrubTest, WithoutStepsThereIsNothingToLookAt) {
  EXPECT_EQ(scrub_.next(), std::nullopt);
  EXPECT_FALSE(scrub_.look());
}

TEST_F(ScrubTest, TakesTheStepThatWasVerifiedLongestAgo) {
  save({10, 20, 30});
  std::vector<int64_t> order;
  for (int look = 0; look < 4; ++look) {
    order.push_back(*scrub_.next());
    EXPECT_FALSE(scrub_.look());
  }
  EXPECT_THAT(order, ElementsAre(10, 20, 30, 10));
  save({40});
  EXPECT_EQ(scrub_.next(), 40);  // never verified
  store_.retire(2);
  EXPECT_FALSE(scrub_.look());
  EXPECT_EQ(scrub_.next(), 30);
}

TEST_F(ScrubTest, ADamagedStepIsNamedAndSetAsideWhereAnotherIsWhole) {
  save({10, 20, 30});
  damage(10);
  std::optional<DamagedStep> found = scrub_.look();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->step, 10);
  EXPECT_EQ(found->whole_step, 30);
  EXPECT_THAT(steps(), ElementsAre(10, 20, 30)) << "looking changed something";
  EXPECT_THAT(settle(store_, *found),
              ElementsAre("step-00000010: tile 0 of " + first_file + " (bytes 0 to 1104, written by rank 0) is damaged",
                          HasSubstr("step-00000010 was moved to " + folder_.at("damaged/step-00000010."))));
  EXPECT_THAT(steps(), ElementsAre(20, 30));
  EXPECT_TRUE(exists(join_path(folder_.at("damaged"), list_folder(folder_.at("damaged")).front() + "/" + first_file)));
}

TEST_F(ScrubTest, TheOnlyWholeOneMayBeTheOlder) {
  save({10, 20, 30});
  damage(20);
  damage(30);
  EXPECT_FALSE(scrub_.look());
  std::optional<DamagedStep> found = scrub_.look();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->step, 20);
  EXPECT_EQ(found->whole_step, 10);
}

TEST_F(ScrubTest, TheLastStepsStayHoweverDamaged) {
  save({10, 20});
  damage(10);
  damage(20);
  std::optional<DamagedStep> found = scrub_.look();
  ASSERT_TRUE(found);
  EXPECT_EQ(found->whole_step, std::nullopt);
  EXPECT_THAT(settle(store_, *found).back(), HasSubstr("step-00000010 stays where it is: no other checkpoint"));
  EXPECT_THAT(steps(), ElementsAre(10, 20));
}

TEST_F(ScrubTest, StaysWhereTheWholeOneWasRemovedMeanwhile) {
  save({10, 20});
  damage(20);
  EXPECT_FALSE(scrub_.look());
  std::optional<DamagedStep> found = scrub_.look();
  ASSERT_TRUE(found);
  std::filesystem::remove_all(store_.folder(10));
  EXPECT_THAT(settle(store_, *found).back(), HasSubstr("step-00000020 stays where it is"));
  EXPECT_THAT(steps(), ElementsAre(20));
}

TEST_F(ScrubTest, AManifestThatIsWrongIsDamageToo) {
  save({10, 20});
  flip_bit(join_path(store_.folder(10), "manifest.json"), 100);
  std::optional<DamagedStep> found = scrub_.look();
  ASSERT_TRUE(found);
  EXPECT_THAT(found->damage, ElementsAre(HasSubstr("manifest.json")));
}

TEST_F(ScrubTest, AStepThatIsRemovedWhileItIsReadIsNoDamage) {
  save_step(store_, 10, 3 * tile_bytes);
  save({20, 30});
  int asked = 0;
  auto retire_behind_the_second_tile = [&] {
    if (++asked == 2) store_.retire(2);
    return false;
  };
  EXPECT_FALSE(scrub_.look(retire_behind_the_second_tile));
  EXPECT_THAT(steps(), ElementsAre(20, 30));
  EXPECT_GT(asked, 2);
}

TEST_F(ScrubTest, AStepThatIsRemovedBeforeItIsSettledIsNotSpokenOf) {
  save({10, 20, 30});
  damage(10);
  std::optional<DamagedStep> found = scrub_.look();
  ASSERT_TRUE(found);
  store_.retire(2);
  EXPECT_THAT(settle(store_, *found), IsEmpty());
}

TEST_F(ScrubTest, WhatIsInFlightIsNeitherReadNorMoved) {
  std::string staging = store_.begin(10, 1000);
  write_rank_file(staging, 0, 'x');
  EXPECT_EQ(scrub_.next(), std::nullopt);
  EXPECT_FALSE(scrub_.look());
  EXPECT_TRUE(exists(staging));
}

TEST_F(ScrubTest, WhoLostTheFolderMovesNothing) {
  save({10, 20});
  damage(10);
  std::optional<DamagedStep> found = scrub_.look();
  ASSERT_TRUE(found);
  make_folders(folder_.at("lease"));
  ASSERT_TRUE(make_claim(folder_.path(), 8, RunOwner::this_process()));
  store_.act_under(7);
  EXPECT_THAT(settle(store_, *found).back(), HasSubstr("taken over"));
  EXPECT_THAT(steps(), ElementsAre(10, 20));
}

TEST_F(ScrubTest, OfManyTilesTheRestIsCounted) {
  save({10, 20});
  DamagedStep found{.step = 10, .damage = std::vector<std::string>(23, "tile"), .whole_step = 20};
  std::vector<std::string> lines = settle(store_, found);
  ASSERT_EQ(lines.size(), 22u);
  EXPECT_EQ(lines[20], "step-00000010: the same of 3 more tiles");
}

TEST_F(ScrubTest, GivenUpItFindsNothing) {
  save({10, 20});
  damage(10);
  EXPECT_FALSE(scrub_.look([] { return true; }));
}

TEST_F(ScrubTest, FindsDamageFromAThreadOfItsOwn) {
  save({10, 20});
  damage(10);
  BackgroundScrub background(store_, 1e-5);
  std::vector<DamagedStep> found;
  for (int i = 0; found.empty() && i < 1000; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    found = background.take();
  }
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found.front().step, 10);
}

TEST_F(ScrubTest, EndsAtOnceWhileItWaits) {
  save({10});
  auto begin = std::chrono::steady_clock::now();
  { BackgroundScrub background(store_, 60); }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
}

TEST_F(ScrubTest, AStoreThatCannotBeReadEndsNothing) {
  write_file_atomically(folder_.at("checkpoints"), "a file in place of the folder");
  EXPECT_REFUSED(scrub_.look(), storage, "cannot list");
  EXPECT_THAT(settle(store_, {.step = 10, .damage = {"tile"}}).back(), HasSubstr("cannot list"));
  BackgroundScrub background(store_, 1e-5);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_THAT(background.take(), IsEmpty());
}

}  // namespace
}  // namespace echelon
