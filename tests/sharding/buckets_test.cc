// A bucket is written again only when its reduction is done.
#include <gtest/gtest.h>

#include <string>

#include <ATen/ATen.h>

#include "comm/session.h"
#include "sharding/zero.h"

namespace echelon {
namespace {

class BucketsOfGradients : public ::testing::Test {
 protected:
  Buckets::Bucket& acquire(int64_t elements = 8) {
    return buckets_.acquire(elements, at::kFloat, session_.world());
  }
  /// A reduction that goes on until it is waited for.
  void give_back(Buckets::Bucket& bucket, const std::string& name) {
    buckets_.give_back(&bucket, Work([this, name] { waited_for_ += name; }));
  }

  Session session_ = Session::alone();
  Buckets buckets_;
  std::string waited_for_;
};

TEST_F(BucketsOfGradients, TwoAreEnoughForUnitsInARow) {
  Buckets::Bucket& first = acquire();
  give_back(first, "a");
  Buckets::Bucket& second = acquire();
  EXPECT_NE(&second, &first);
  EXPECT_EQ(waited_for_, "");
  give_back(second, "b");
  EXPECT_EQ(&acquire(), &first);
  EXPECT_EQ(waited_for_, "a");
}

TEST_F(BucketsOfGradients, AnEnclosingUnitKeepsItsOwn) {
  Buckets::Bucket& enclosing = acquire();
  Buckets::Bucket& inner = acquire();
  give_back(inner, "a");
  Buckets::Bucket& next = acquire();
  EXPECT_NE(&next, &enclosing);
  EXPECT_NE(&next, &inner);
  EXPECT_EQ(waited_for_, "");
}

TEST_F(BucketsOfGradients, OneThatIsTooSmallIsNotTaken) {
  Buckets::Bucket& small = acquire(8);
  buckets_.give_back(&small, {});
  EXPECT_EQ(&acquire(8), &small);
  buckets_.give_back(&small, {});
  EXPECT_GE(acquire(9).memory.numel(), 9);
}

TEST_F(BucketsOfGradients, SettlingWaitsForAllInTheirOrder) {
  Buckets::Bucket& first = acquire();
  give_back(first, "a");
  give_back(acquire(), "b");
  buckets_.settle();
  EXPECT_EQ(waited_for_, "ab");
  EXPECT_EQ(&acquire(), &first);
  EXPECT_EQ(waited_for_, "ab");
}

}  // namespace
}  // namespace echelon
