#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "sharding/layout.h"
#include "sharding/seed.h"

namespace echelon {
namespace {

TEST(Seed, DrawsDependOnEveryNameAndNumber) {
  Seed seed(7);
  std::set<uint64_t> keys{seed.key(),
                          seed.with(0).key(),
                          seed.with(1).key(),
                          seed.with("a").key(),
                          seed.with("b").key(),
                          seed.with("a").with("b").key(),
                          seed.with("b").with("a").key(),
                          Seed(8).with("a").key()};
  EXPECT_EQ(keys.size(), 8u);
}

TEST(Seed, NormalValuesOfASliceAreThoseOfTheWhole) {
  std::vector<int64_t> sizes{13, 7};
  at::Tensor whole = keyed_normal(Seed(1), sizes, Slice::whole(sizes));
  at::Tensor part = keyed_normal(Seed(1), sizes, {{4, 2}, {5, 3}});
  EXPECT_TRUE(at::equal(part, whole.narrow(0, 4, 5).narrow(1, 2, 3)));
}

TEST(Seed, NormalValuesHaveMeanZeroAndDeviationOne) {
  std::vector<int64_t> sizes{200000};
  at::Tensor values = keyed_normal(Seed(3), sizes, Slice::whole(sizes));
  // Five standard errors of 200,000 draws.
  EXPECT_NEAR(values.mean().item<double>(), 0, 0.012);
  EXPECT_NEAR(values.std().item<double>(), 1, 0.008);
}

TEST(Permutation, VisitsEverySampleOnce) {
  for (int64_t size : {1, 2, 3, 17, 1000}) {
    Permutation permutation(Seed(5), size);
    std::set<int64_t> seen;
    for (int64_t i = 0; i < size; ++i) seen.insert(permutation(i));
    EXPECT_EQ(static_cast<int64_t>(seen.size()), size);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), size - 1);
  }
}

TEST(Permutation, MovesMostSamplesAndDependsOnTheSeed) {
  Permutation one(Seed(1), 1000), other(Seed(2), 1000);
  int64_t in_place = 0, equal = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    in_place += one(i) == i;
    equal += one(i) == other(i);
  }
  EXPECT_LT(in_place, 10);
  EXPECT_LT(equal, 10);
}

TEST(Layout, UnevenSlicesCoverADimOnce) {
  Layout layout = Layout::sharded({7, 3}, 0, "tp");
  int64_t next = 0;
  for (int rank = 0; rank < 4; ++rank) {
    Slice slice = layout.local(rank, 4);
    EXPECT_EQ(slice.offsets[0], next);
    EXPECT_EQ(slice.sizes[1], 3);
    next += slice.sizes[0];
  }
  EXPECT_EQ(next, 7);
}

TEST(Layout, IntersectionOfSlicesThatDoNotMeetIsEmpty) {
  EXPECT_EQ(intersect({{0, 0}, {2, 5}}, {{2, 0}, {2, 5}}).elements(), 0);
  EXPECT_EQ(intersect({{0, 0}, {3, 5}}, {{2, 4}, {2, 5}}), (Slice{{2, 4}, {1, 1}}));
}

}  // namespace
}  // namespace echelon
