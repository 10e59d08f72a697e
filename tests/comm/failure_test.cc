// Ranks that fail or do not come: an error that names them, and never a hang.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>

#include <ATen/ATen.h>

#include "cluster/base/error.h"
#include "tests/comm/worlds.h"

namespace echelon::testing {

namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr double kSoon = 0.3;  // seconds; the other ranks are only late on purpose

/// What run_thread_ranks throws when `rank_main` runs on `ranks`.
std::string error_of_threads(int ranks, const std::function<void(const Group&)>& rank_main,
                             SessionOptions options = {}) {
  try {
    run_thread_ranks(ranks, rank_main, options);
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

TEST(ThreadRanks, RethrowTheFirstExceptionAndReleaseTheOthers) {
  std::atomic<int> released = 0;
  std::string error = error_of_threads(3, [&](const Group& group) {
    if (group.rank() == 1) throw std::runtime_error("disk on fire");
    try {
      group.barrier({.name = "never"});
    } catch (const Error& echo) {
      EXPECT_EQ(echo.kind(), Error::Kind::comm);
      EXPECT_THAT(echo.what(), HasSubstr("rank 1 has failed: disk on fire"));
      ++released;
      throw;
    }
  });
  EXPECT_EQ(error, "disk on fire");
  EXPECT_EQ(released, 2);
}

TEST(ThreadRanks, ARankThatNeverComesIsNamedWithItsLastCollective) {
  std::string error = error_of_threads(3,
                                       [](const Group& group) {
                                         at::Tensor x = at::zeros({4});
                                         group.all_reduce(x, {.name = "loss"}).wait();
                                         if (group.rank() != 2) group.barrier({.name = "end of step"});
                                       },
                                       {.timeout_seconds = kSoon});
  EXPECT_THAT(error, AllOf(HasSubstr("barrier \"end of step\" in group world"),
                           HasSubstr("waited 0.3 s for rank 2 (last in all_reduce \"loss\" of 4 float32 (number 1))")));
}

TEST(ThreadRanks, AReceiverWaitsNoLongerThanTheTimeout) {
  std::string error = error_of_threads(2,
                                       [](const Group& group) {
                                         at::Tensor x = at::zeros({4});
                                         if (group.rank() == 0) group.recv(x, 1, {.name = "activations"}).wait();
                                       },
                                       {.timeout_seconds = kSoon});
  EXPECT_THAT(error, HasSubstr("waited 0.3 s for rank 1 to send what rank 0 expects in recv \"activations\""));
}

TEST(ThreadRanks, ASenderWaitsNoLongerThanTheTimeout) {
  std::string error = error_of_threads(2,
                                       [](const Group& group) {
                                         at::Tensor x = at::zeros({4});
                                         if (group.rank() == 0) group.send(x, 1, {.name = "activations"}).wait();
                                       },
                                       {.timeout_seconds = kSoon});
  EXPECT_THAT(error, HasSubstr("waited 0.3 s for rank 1 to receive what rank 0 sends"));
}

TEST(ThreadRanks, AWindowLargerThanTheMemoryIsRefusedOnEveryRank) {
  std::atomic<int> refused = 0;
  run_thread_ranks(3, [&](const Group& group) {
    try {
      group.allocate(int64_t{1} << 50, at::kByte);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), Error::Kind::memory);
      ++refused;
    }
    group.barrier({.name = "after"});  // and the group goes on
  });
  EXPECT_EQ(refused, 3);
}

TEST(ThreadRanks, UncheckedCollectivesStillAddUp) {
  run_thread_ranks(3,
                   [](const Group& group) {
                     at::Tensor x = at::ones({5});
                     group.all_reduce(x, {.name = fmt::format("name of rank {}", group.rank())}).wait();
                     EXPECT_EQ(x.sum().item<double>(), 15);
                   },
                   {.checked = false});
}

TEST(ThreadRanks, NoneAreRefused) {
  EXPECT_THAT(error_of_threads(0, [](const Group&) {}), HasSubstr("0 ranks"));
}

/// What a rank gets when the last one stays away from a collective, in a session of its own, which all end together.
std::string error_without_last_rank(const SessionOptions& options, int64_t elements = 4) {
  static char name[] = "test";
  static char* arguments[] = {name, nullptr};
  int argc = 1;
  char** argv = arguments;
  Session session = Session::join(argc, argv, options);
  const Group& world = session.world();
  std::string error;
  try {
    at::Tensor x = zeros(world, {elements});
    if (world.rank() < world.size() - 1) {
      world.all_reduce(x, {.name = "never"}).wait();
      world.barrier({.name = "behind it"});  // a GPU's host goes on at once
    }
  } catch (const Error& caught) {
    error = caught.what();
  }
  testing::session().world().barrier({.name = "all back"});
  return error;
}

TEST(Processes, NameTheRankThatNeverComes) {
  const Group& world = testing::session().world();
  if (world.size() == 1) return;
  for (int ranks_per_node : {0, 1, 2}) {
    std::string error =
        error_without_last_rank({.backend = "mpi", .timeout_seconds = kSoon, .ranks_per_node = ranks_per_node});
    if (world.rank() == 0) {
      EXPECT_THAT(error, AllOf(HasSubstr("waited 0.3 s for "), HasSubstr(fmt::format("rank {}", world.size() - 1))));
    } else if (world.rank() < world.size() - 1) {
      EXPECT_THAT(error, HasSubstr("comm: all_reduce \"never\""));
    }
  }
}

TEST(Processes, NameItToWhomeverWaitsForWhatIsUnderWay) {
  const Group& world = testing::session().world();
  if (world.size() == 1) return;
  constexpr int64_t kLarge = 100'000;
  for (int ranks_per_node : {1, 2}) {
    std::string error = error_without_last_rank(
        {.backend = "mpi", .timeout_seconds = kSoon, .ranks_per_node = ranks_per_node}, kLarge);
    if (world.rank() == 0) {
      EXPECT_THAT(error, AllOf(HasSubstr("waited 0.3 s for "), HasSubstr(fmt::format("rank {}", world.size() - 1))));
    } else if (world.rank() < world.size() - 1) {
      EXPECT_THAT(error, HasSubstr("comm: all_reduce \"never\""));
    }
  }
}

TEST(Processes, DoNotWaitForWhatIsUnderWayOnceTheyHaveFailed) {
  const Group& world = testing::session().world();
  if (world.size() == 1) return;
  auto before = std::chrono::steady_clock::now();
  {
    Session session = session_of_nodes(1);  // patient for 60 s
    bool last = world.rank() == world.size() - 1;
    auto fail = [&] {
      at::Tensor x = at::zeros({100'000});
      Work work = last ? Work() : session.world().all_reduce(x, {.name = "never"});
      throw Error::numerics("step 3", "loss is not finite");
    };
    EXPECT_THROW(fail(), Error);
  }
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(30));
  world.barrier({.name = "all back"});
}

/// Where there are GPUs: nothing is compared, so that the GPU itself waits for the rank that does not come.
class OnGpus : public ::testing::TestWithParam<World> {};
INSTANTIATE_TEST_SUITE_P(Worlds, OnGpus, ::testing::ValuesIn(on_gpus() ? worlds() : std::vector<World>()));
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OnGpus);

TEST_P(OnGpus, ACollectiveThatNeverEndsIsGivenUp) {
  const Group& world = testing::session().world();
  if (world.size() == 1) return;
  std::string error = error_without_last_rank({.backend = "nccl", .timeout_seconds = kSoon, .checked = false});
  if (world.rank() < world.size() - 1) {
    EXPECT_THAT(error, HasSubstr("waited 0.3 s for the other ranks to take part in all_reduce \"never\""));
  }
}

}  // namespace

}  // namespace echelon::testing
