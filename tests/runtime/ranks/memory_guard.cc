// Masters and optimizer state between two updates: as they were, and named where they are not.
#include "runtime/memory_guard.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/base/error.h"
#include "runtime/recipe/text.h"
#include "runtime/trainer.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/test_session.h"

namespace echelon::testing {

namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// Two steps of the tiny decoder with everything guarded.
struct Training {
  explicit Training(std::vector<std::string> more, const std::string& parts = "") {
    more.push_back("numerics.guard_share=1");
    recipe = tiny_recipe("base/tiny_decoder_clm", more);
    recipe.MergeFrom(parse_recipe(parts, "test"));
    mesh.emplace(session().world(), MeshShape{.replicas = recipe.mesh().replicas()});
    trainer.emplace(recipe, *mesh);
    for (int64_t step = 1; step <= 2; ++step) trainer->step(step);
  }
  Recipe recipe;
  std::optional<Mesh> mesh;
  std::optional<Trainer> trainer;
};

/// The message; empty: all is as it was.
std::string found(const std::function<void()>& check) {
  try {
    check();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), Error::Kind::comm);
    return error.what();
  }
  return "";
}

void flip(const at::Tensor& flat, int64_t element) {
  static_cast<unsigned char*>(flat.data_ptr())[element * static_cast<int64_t>(flat.element_size())] ^= 1;
}

TEST(MemoryGuard, FindsNothingWhereNothingChanged) {
  for (const char* layout : {"sharding.zero=0", "sharding.zero=3", "precision=BF16"}) {
    SCOPED_TRACE(layout);
    Training run({layout});
    run.trainer->step(3);
    EXPECT_EQ(found([&] { run.trainer->check_memory(); }), "");
  }
}

TEST(MemoryGuard, FindsNothingWhereReplicasMeet) {
  if (session().world().size() < 2) return;
  Training run({"mesh.replicas=2"}, "exchange { [echelon/DiLoCo] { inner_steps: 2 } }");
  for (int64_t step = 3; step <= 5; ++step) run.trainer->step(step);
  EXPECT_EQ(found([&] { run.trainer->check_memory(); }), "");
}

TEST(MemoryGuard, NamesWhatChangedAndWhere) {
  Training run({});
  Owned& owned = run.trainer->owned().back();
  const Segment& segment = owned.shard->segments().front();
  std::string name = segment.parameter->name(), rank = fmt::format("memory of rank {} ", session().world().rank());
  visit_state(owned, [&](const std::string& suffix, const at::Tensor& flat) {
    flip(flat, segment.offset);
    EXPECT_THAT(found([&] { run.trainer->check_memory(); }),
                AllOf(HasSubstr(name + suffix), HasSubstr(rank), HasSubstr("the update of step 2, in elements 0 to")));
    flip(flat, segment.offset);
  });
  EXPECT_EQ(found([&] { run.trainer->check_memory(); }), "");
}

TEST(MemoryGuard, NoUpdateIsMadeOfWhatChanged) {
  if (session().world().size() > 1) return;  // the others would wait
  Training run({});
  at::Tensor master = run.trainer->owned().front().shard->master();
  flip(master, 0);
  at::Tensor before = master.clone();
  EXPECT_THAT(found([&] { run.trainer->step(3); }), HasSubstr("changed after the update of step 2"));
  EXPECT_TRUE(at::equal(master, before));
}

TEST(MemoryGuard, AShareGoesRoundThroughEverything) {
  Training run({});
  MemoryGuard guard(run.trainer->owned(), 0.26, 0);
  for (Owned& owned : run.trainer->owned()) {
    visit_state(owned, [&](const std::string& name, const at::Tensor& flat) {
      int times = 0;
      for (int64_t step = 1; step <= 4; ++step) {
        guard.keep(step);
        flip(flat, flat.numel() - 1);
        times += !found([&] { guard.check(); }).empty();
      }
      EXPECT_GE(times, 1) << owned.shard->name() << name;
      EXPECT_LE(times, 2) << owned.shard->name() << name;
    });
  }
}

TEST(MemoryGuard, OfNothingFindsNothing) {
  Training run({});
  MemoryGuard guard(run.trainer->owned(), 0, 0);
  guard.keep(1);
  flip(run.trainer->owned().front().shard->master(), 0);
  EXPECT_EQ(found([&] { guard.check(); }), "");
}

}  // namespace

}  // namespace echelon::testing
