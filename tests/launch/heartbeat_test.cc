#include "launch/command/heartbeats.h"

#include <filesystem>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "launch/options/heart.h"
#include "launch/options/rank_status.h"

namespace echelon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

RankView view_of(int rank) {
  return {.rank = rank,
          .host = "n2",
          .progress = {.phase = Phase::update, .step = 12, .beats = 99, .first_step = 3},
          .inside = true,
          .collective = "all_reduce \"losses and norm\", number 17 of group world",
          .group = "world",
          .sequence = 17,
          .completed = {{"world", 16}, {"dp", 200}}};
}

class Heartbeats_ : public testing::Test {
 protected:
  void hear(int64_t number, double now, int rank = 3, bool last = false) {
    heard_.take(seal({.number = number, .last = last, .view = view_of(rank)}, key_), now);
  }
  std::vector<char> states(double now) {
    std::vector<char> states;
    for (const RankView& view : heard_.views(now)) states.push_back(view.process_state);
    return states;
  }

  std::string key_ = ControlPlane::new_key();
  HeardRanks heard_{key_};
};

TEST_F(Heartbeats_, AreReadAsTheyWereWritten) {
  auto read = unseal(seal({.number = 5, .last = true, .view = view_of(3)}, key_), key_);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->number, 5);
  EXPECT_TRUE(read->last);
  EXPECT_EQ(read->view, view_of(3));
}

TEST_F(Heartbeats_, NamesOfAnyBytesTravel) {
  RankView view = view_of(0);
  view.collective = "\xff\n\"\x01";
  EXPECT_TRUE(unseal(seal({.number = 1, .view = view}, key_), key_));
}

TEST_F(Heartbeats_, OnlyTheKeyOfTheJobOpensThem) {
  std::string datagram = seal({.number = 5, .view = view_of(3)}, key_);
  EXPECT_FALSE(unseal(datagram, ControlPlane::new_key()));
  for (size_t i = 0; i < datagram.size(); ++i) {
    std::string changed = datagram;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    EXPECT_FALSE(unseal(changed, key_)) << "byte " << i;
    EXPECT_FALSE(unseal(datagram.substr(0, i), key_)) << "first " << i;
  }
}

TEST_F(Heartbeats_, RandomDatagramsChangeNothingButACount) {
  hear(1, 10);
  std::mt19937 random(7);
  for (int i = 0; i < 20'000; ++i) {
    std::string datagram(random() % 200, '\0');
    for (char& byte : datagram) byte = static_cast<char>(random());
    heard_.take(datagram, 11);
  }
  EXPECT_EQ(heard_.dropped(), 20'000);
  EXPECT_THAT(heard_.views(11), ElementsAre(view_of(3)));
  EXPECT_THAT(heard_.news(11), ElementsAre(HasSubstr("not of this job")));
  heard_.take("more", 11);
  EXPECT_THAT(heard_.news(11), IsEmpty());
}

TEST_F(Heartbeats_, AnOldOneIsNotTakenAgain) {
  hear(1, 10);
  hear(2, 10.5);
  hear(1, 20);
  hear(2, 20);
  EXPECT_EQ(heard_.dropped(), 2);
  EXPECT_THAT(states(20), ElementsAre('?'));
}

TEST_F(Heartbeats_, ARankThatIsNotHeardOfIsSilentUntilItIs) {
  hear(1, 10);
  EXPECT_THAT(states(12.9), ElementsAre('R'));
  EXPECT_THAT(heard_.news(12.9), IsEmpty());
  EXPECT_THAT(states(13), ElementsAre('?'));
  EXPECT_THAT(heard_.news(13), ElementsAre("rank 3 on n2: not heard of for 3 s"));
  EXPECT_THAT(heard_.news(13.5), IsEmpty());
  hear(2, 14);
  EXPECT_THAT(states(14), ElementsAre('R'));
  EXPECT_THAT(heard_.news(14), ElementsAre("rank 3 on n2: heard of again"));
}

TEST_F(Heartbeats_, ARankThatEndsIsForgotten) {
  hear(1, 10, 2);
  hear(1, 10, 3);
  hear(2, 11, 2, true);
  EXPECT_THAT(states(30), ElementsAre('?'));
  EXPECT_EQ(heard_.news(30).size(), 1u);
}

TEST_F(Heartbeats_, TheMachineThatFellSilentFirstIsTheLostOne) {
  EXPECT_FALSE(heard_.lost_machine(10));
  for (int rank : {2, 3}) hear(1, 10, rank);
  EXPECT_FALSE(heard_.lost_machine(10.5));
  hear(2, 10.4, 3);
  auto lost = heard_.lost_machine(12);
  ASSERT_TRUE(lost);
  EXPECT_EQ(lost->host, "n2");
  EXPECT_THAT(lost->ranks, ElementsAre(2, 3));
  EXPECT_NEAR(lost->seconds, 1.6, 1e-9);
  RankView other = view_of(4);
  other.host = "n3";
  heard_.take(seal({.number = 1, .view = other}, key_), 10.2);
  EXPECT_EQ(heard_.lost_machine(12)->host, "n3");
  hear(3, 12, 3, true);
  EXPECT_EQ(heard_.lost_machine(20)->host, "n3");
}

/// A launcher that believes to be on another machine, in a folder of its own.
class Plane : public testing::Test {
 protected:
  Plane() {
    mkdtemp(folder_.data());
    heartbeats_ = Heartbeats::listen({"127.0.0.1", "127.0.0.2"}, folder_);
  }
  ~Plane() override { std::filesystem::remove_all(folder_); }

  void move_to(const std::string& host) {
    ControlPlane control = *ControlPlane::read(folder_);
    std::filesystem::remove(folder_ + "/control.json");
    control.host = host;
    control.write(folder_);
  }
  std::vector<RankView> views_after(int milliseconds) {
    usleep(milliseconds * 1000);
    return heartbeats_->heard(10).views(10);
  }

  std::string folder_ = testing::TempDir() + "/plane-XXXXXX";
  std::unique_ptr<Heartbeats> heartbeats_;
};

TEST_F(Plane, ARanksHeartIsHeardWhileItLives) {
  ASSERT_TRUE(heartbeats_);
  move_to("elsewhere");
  RankProgress progress(folder_ + "/rank-00002.progress");
  progress.enter(Phase::evaluate, 8);
  {
    Heart heart(folder_, 2);
    auto views = views_after(200);
    ASSERT_EQ(views.size(), 1u);
    EXPECT_EQ(views[0].rank, 2);
    EXPECT_EQ(views[0].host, host_name());
    EXPECT_EQ(views[0].progress.step, 8);
    progress.enter(Phase::compute, 9);
    EXPECT_EQ(views_after(700).at(0).progress.step, 9);
  }
  EXPECT_THAT(views_after(0), IsEmpty());
}

TEST_F(Plane, TheKeyIsForItsOwnerAlone) {
  EXPECT_EQ(std::filesystem::status(folder_ + "/control.json").permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(Plane, RanksOfTheLaunchersMachineNeedNotTell) {
  Heart heart(folder_, 2);
  EXPECT_THAT(views_after(200), IsEmpty());
}

TEST(Heartbeats, AJobOfThisMachineHasNoListener) {
  EXPECT_FALSE(Heartbeats::listen({}, testing::TempDir()));
  EXPECT_FALSE(Heartbeats::listen({"localhost"}, testing::TempDir()));
}

}  // namespace
}  // namespace echelon
