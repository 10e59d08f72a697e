// Copies that several ranks hold: alike after steps of every layout, and named where one of them is not.
#include "runtime/replica_check.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/base/error.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/runtime/ranks/trace.h"
#include "tests/test_session.h"

namespace echelon::testing {

namespace {

using ::testing::HasSubstr;

struct Layout {
  int zero = 0, tp = 1, replicas = 1;
  std::string precision = "FP32";
};

class ReplicaCheck : public ::testing::TestWithParam<Layout> {
 protected:
  void SetUp() override {
    if (!has_ranks_for(GetParam().tp * GetParam().replicas)) return;
    const Layout& l = GetParam();
    Recipe recipe = tiny_recipe("base/tiny_decoder_clm", {fmt::format("sharding.zero={}", l.zero),
                                                          fmt::format("precision={}", l.precision)});
    mesh_.emplace(session().world(), MeshShape{.tp = l.tp, .replicas = l.replicas});
    recipe.mutable_mesh()->set_tp(l.tp);
    recipe.mutable_mesh()->set_replicas(l.replicas);
    trainer_.emplace(recipe, *mesh_);
    for (int64_t step = 1; step <= 2; ++step) trainer_->step(step);
  }

  /// The message; empty: all is alike.
  std::string found() {
    try {
      compare_replicas(*trainer_);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::comm);
      return error.what();
    }
    return "";
  }

  /// Flips the lowest bit of the first element of a tensor, on the last rank.
  static void flip(const at::Tensor& memory) {
    if (session().world().rank() + 1 < session().world().size()) return;
    auto* byte = static_cast<unsigned char*>(memory.data_ptr());
    *byte ^= 1;
  }

  /// Names the last rank where most ranks outvote it, else both sides.
  static std::string culprit(int holders) {
    int last = session().world().size() - 1;
    return holders > 2 ? fmt::format("rank {} no longer holds", last) : fmt::format("ranks 0, {} no longer hold", last);
  }

  std::optional<Mesh> mesh_;
  std::optional<Trainer> trainer_;
};

TEST_P(ReplicaCheck, FindsCopiesAlikeAfterSteps) {
  if (!trainer_) return;
  EXPECT_EQ(found(), "");
}

TEST_P(ReplicaCheck, NamesAMasterThatIsNot) {
  bool copied = GetParam().zero == 0 || GetParam().replicas > 1;
  if (!trainer_ || !copied || GetParam().tp > 1) return;
  Owned& owned = trainer_->owned().front();
  flip(owned.shard->master());
  std::string message = found(), name = owned.shard->segments().front().parameter->name();
  if (GetParam().replicas == 1) {
    EXPECT_THAT(message, HasSubstr(name + ": " + culprit(mesh_->dp_in_replica().size())));
  } else if (mesh_->dp_in_replica().rank() + 1 == mesh_->dp_in_replica().size()) {  // holds what the last rank holds
    EXPECT_THAT(message, HasSubstr(name + ": ranks "));
  }
}

TEST_P(ReplicaCheck, NamesStateOfATensorThatTensorParallelRanksShare) {
  if (!trainer_ || GetParam().tp == 1) return;
  std::string name;  // where this rank, and so the one beside it, owns such a tensor
  at::Tensor memory;
  for (Owned& owned : trainer_->owned()) {
    for (const Segment& segment : owned.shard->segments()) {
      if (segment.parameter->layout().is_sharded_on("tp")) continue;
      name = segment.parameter->name() + ".exp_avg";
      memory = owned.state.at("exp_avg").narrow(0, segment.offset, segment.length);
    }
  }
  if (memory.defined()) flip(memory);
  std::string message = found();
  bool last_pair = mesh_->dp().rank() + 1 == mesh_->dp().size();
  if (last_pair && memory.defined() && mesh_->dp().size() == 1) {
    EXPECT_THAT(message, HasSubstr(name + ": ranks 0, 1 no longer hold"));
  } else if (last_pair && memory.defined() && GetParam().zero > 0) {
    EXPECT_THAT(message, HasSubstr(name + ": ranks "));
  }
}

TEST_P(ReplicaCheck, NamesAValueThatIsNot) {
  if (!trainer_ || GetParam().zero == 3 || GetParam().zero == 0 || mesh_->dp_in_replica().size() == 1) return;
  const Parameter& parameter = *trainer_->model().weights().shards().front()->parameters().front();
  flip(parameter.value());
  std::string message = found();
  bool has_it = mesh_->tp().rank() + 1 == mesh_->tp().size();  // the part that the last rank has, too
  EXPECT_THAT(message, has_it ? HasSubstr(parameter.name() + ": rank") : HasSubstr(""));
}

INSTANTIATE_TEST_SUITE_P(All, ReplicaCheck,
                         ::testing::Values(Layout{0}, Layout{1}, Layout{2, 1, 1, "BF16"}, Layout{3}, Layout{0, 2},
                                           Layout{1, 2}, Layout{3, 1, 2}),
                         [](const auto& info) {
                           const Layout& l = info.param;
                           return fmt::format("zero{}tp{}replicas{}{}", l.zero, l.tp, l.replicas, l.precision);
                         });

}  // namespace

}  // namespace echelon::testing
