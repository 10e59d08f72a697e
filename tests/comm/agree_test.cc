// Decisions that all ranks take alike, and the mesh of their groups.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/base/error.h"
#include "comm/agree.h"
#include "comm/mesh.h"
#include "tests/comm/worlds.h"

namespace echelon::testing {

namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Agreement : public OnEveryBackend {};
ECHELON_ON_EVERY_BACKEND(Agreement);

TEST_P(Agreement, OfAllNeedsEveryRankAndOfAnyNeedsOne) {
  on_ranks([](const Group& group) {
    bool last = group.rank() == group.size() - 1;
    EXPECT_TRUE(agree_all(group, true, "finite"));
    EXPECT_FALSE(agree_all(group, !last, "finite"));
    EXPECT_TRUE(agree_any(group, last, "stop"));
    EXPECT_FALSE(agree_any(group, false, "stop"));
    EXPECT_EQ(agree_any(group, {last, false, group.rank() == 0}, "several"), (std::vector<bool>{true, false, true}));
  });
}

TEST_P(Agreement, OnSumsAndMaxima) {
  on_ranks([](const Group& group) {
    int64_t n = group.size();
    EXPECT_EQ(agree_sum(group, int64_t{group.rank()} + 1, "targets"), n * (n + 1) / 2);
    EXPECT_EQ(agree_max(group, int64_t{group.rank()}, "bytes"), n - 1);
    EXPECT_EQ(agree_sum(group, 0.5, "norm"), 0.5 * static_cast<double>(n));
    EXPECT_EQ(agree_max(group, -1.0 * group.rank(), "norm"), 0.0);
  });
}

TEST_P(Agreement, OnTheTextOfAnyRank) {
  on_ranks([](const Group& group) {
    for (int root = 0; root < group.size(); ++root) {
      std::string mine = std::string(static_cast<size_t>(group.rank()) * 7, 'x') + std::to_string(group.rank());
      EXPECT_EQ(agree_text(group, mine, root, "run"),
                std::string(static_cast<size_t>(root) * 7, 'x') + std::to_string(root));
    }
    EXPECT_EQ(agree_text(group, "", 0, "nothing"), "");
  });
}

TEST_P(Agreement, OnSameTextsNamesTwoRanksThatDiffer) {
  on_ranks([](const Group& group) {
    EXPECT_NO_THROW(agree_same(group, "recipe v1", "recipe"));
    if (group.size() == 1) return;
    std::string mine = group.rank() == 1 ? "recipe v2" : "recipe v1";
    try {
      agree_same(group, mine, "recipe");
      ADD_FAILURE() << "different texts passed";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr("rank 0 has \"recipe v1\""), HasSubstr("rank 1 has \"recipe v2\"")));
    }
  });
}

class Meshes : public OnEveryBackend {};
ECHELON_ON_EVERY_BACKEND(Meshes);

TEST_P(Meshes, PutTensorParallelRanksSideBySide) {
  on_ranks([](const Group& group) {
    if (group.size() % 2 != 0) return;
    Mesh mesh(group, {.tp = 2});
    EXPECT_EQ(mesh.dp().size(), group.size() / 2);
    EXPECT_EQ(mesh.tp().size(), 2);
    EXPECT_EQ(mesh.dp().rank() * 2 + mesh.tp().rank(), group.rank());
    EXPECT_EQ(agree_sum(mesh.tp(), int64_t{group.rank()}, "neighbours"), group.rank() / 2 * 4 + 1);
    EXPECT_EQ(mesh.place(),
              fmt::format("rank {}/{} dp={} tp={}", group.rank(), group.size(), group.rank() / 2, group.rank() % 2));
  });
}

TEST_P(Meshes, RefuseAxesThatDoNotMultiplyToTheRanks) {
  on_ranks([](const Group& group) {
    for (MeshShape shape : {MeshShape{.dp = group.size() + 1}, MeshShape{.tp = group.size() * 2}, MeshShape{.tp = 0},
                            MeshShape{.dp = -1}}) {
      try {
        Mesh mesh(group, shape);
        ADD_FAILURE() << "dp " << shape.dp << " tp " << shape.tp << " passed";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), Error::Kind::recipe);
      }
    }
  });
}

}  // namespace

}  // namespace echelon::testing
