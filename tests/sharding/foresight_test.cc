// The Unit that is gathered next, as the last pass of the same kind had it.
#include "sharding/foresight.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "comm/session.h"
#include "sharding/unit.h"

namespace echelon {
namespace {

class ForesightOfFourUnits : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"embeddings", "first", "second", "head"})
      units_.push_back(std::make_unique<Unit>(name, zero_));
  }

  /// The position of what is expected after each Unit of a pass; -1: nothing.
  std::vector<int> expected_in(Direction direction, const std::vector<size_t>& positions) {
    std::vector<int> expected;
    for (size_t position : positions) {
      Unit* next = zero_.foresight.after(*units_[position], direction);
      expected.push_back(next ? next->position() : -1);
    }
    return expected;
  }

  Session session_ = Session::alone();
  Mesh mesh_{session_.world(), {}};
  Zero zero_{mesh_, {}};
  std::vector<std::unique_ptr<Unit>> units_;
};

using Positions = std::vector<int>;

TEST_F(ForesightOfFourUnits, LearnsAPassByTheFirstOfItsKind) {
  EXPECT_EQ(expected_in(Direction::forward, {0, 1, 2, 3}), (Positions{-1, -1, -1, -1}));
  EXPECT_EQ(expected_in(Direction::backward, {3, 2, 1, 0}), (Positions{-1, -1, -1, -1}));
  EXPECT_EQ(expected_in(Direction::forward, {0, 1, 2, 3}), (Positions{1, 2, 3, -1}));
  EXPECT_EQ(expected_in(Direction::backward, {3, 2, 1, 0}), (Positions{2, 1, 0, -1}));
}

TEST_F(ForesightOfFourUnits, ExpectsNothingOfTheNextPass) {
  for (int evaluation = 0; evaluation < 3; ++evaluation) {
    Positions expected = expected_in(Direction::forward, {0, 1, 2, 3});
    EXPECT_EQ(expected.back(), -1);
  }
}

TEST_F(ForesightOfFourUnits, ALowestUnitThatIsNotReachedIsNotExpected) {
  for (int step = 0; step < 2; ++step) {
    expected_in(Direction::forward, {0, 1, 2, 3});
    EXPECT_EQ(expected_in(Direction::backward, {3, 2}).back(), -1);
  }
}

TEST_F(ForesightOfFourUnits, AUnitThatIsNeededTwiceForetellsNothingTheSecondTime) {
  expected_in(Direction::forward, {0, 1, 2, 3, 0});
  for (int evaluation = 0; evaluation < 2; ++evaluation)
    EXPECT_EQ(expected_in(Direction::forward, {0, 1, 2, 3, 0}), (Positions{-1, 2, 3, -1, -1}));
}

TEST_F(ForesightOfFourUnits, ForgetsAUnitThatIsGone) {
  expected_in(Direction::forward, {0, 1, 2, 3});
  units_.pop_back();
  EXPECT_EQ(expected_in(Direction::backward, {2, 1}), (Positions{-1, -1}));
  EXPECT_EQ(expected_in(Direction::forward, {0, 1, 2}), (Positions{1, 2, -1}));
}

}  // namespace
}  // namespace echelon
