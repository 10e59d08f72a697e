// Sessions: which backend is chosen, and what is refused before anything starts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include <ATen/ATen.h>

#include "cluster/base/error.h"
#include "comm/ledger/ledger.h"
#include "comm/session.h"

namespace echelon {

namespace {

using ::testing::HasSubstr;

/// Sets an environment variable until the end of the scope.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Environment() { ::unsetenv(name_); }

 private:
  const char* name_;
};

Session join(SessionOptions options) {
  static char name[] = "test";
  static char* arguments[] = {name, nullptr};
  int argc = 1;
  char** argv = arguments;
  return Session::join(argc, argv, std::move(options));
}

std::string error_of_join(SessionOptions options, Error::Kind kind) {
  try {
    join(std::move(options));
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind);
    return error.what();
  }
  return "";
}

TEST(Session, WithoutALauncherIsOneRankWithoutMpi) {
  Session session = join({});
  EXPECT_EQ(session.backend(), "self");
  EXPECT_EQ(session.world().size(), 1);
  EXPECT_EQ(session.local_rank(), 0);
  EXPECT_EQ(session.local_size(), 1);
}

TEST(Session, RefusesAnUnknownBackend) {
  EXPECT_THAT(error_of_join({.backend = "gloo"}, Error::Kind::recipe), HasSubstr("got gloo"));
  EXPECT_THAT(error_of_join({.backend = "thread"}, Error::Kind::recipe), HasSubstr("threads"));
}

TEST(Session, StopsIndependentCopiesUnderSlurm) {
  Environment slurm("SLURM_NTASKS", "4");
  EXPECT_THAT(error_of_join({}, Error::Kind::recipe),
              HasSubstr("4 independent copies were started; use srun --mpi=pmix"));
}

TEST(Session, WritesTheLedgerOfItsRank) {
  std::string pattern = (std::filesystem::temp_directory_path() / "session-XXXXXX").string();
  std::string folder = ::mkdtemp(pattern.data());
  run_thread_ranks(2,
                   [](const Group& group) {
                     at::Tensor x = at::ones({3});
                     group.all_reduce(x, {.name = "loss"}).wait();
                   },
                   {.ledger_path = folder + "/rank-{rank}.ledger"});
  auto last = read_ledger(folder + "/rank-00001.ledger", 1);
  ASSERT_EQ(last.size(), 1u);
  EXPECT_THAT(last[0].text(), HasSubstr("all_reduce \"loss\" of 3 float32 in world (number 1), left at "));
  std::filesystem::remove_all(folder);
}

// On a machine with a GPU the backend itself is the subject of other tests.
TEST(Session, SaysHowToGetNcclWhereItIsMissing) {
  if (std::filesystem::exists("/dev/nvidiactl")) return;
  EXPECT_THAT(error_of_join({.backend = "nccl"}, Error::Kind::recipe), HasSubstr("or use backend mpi"));
}

}  // namespace

}  // namespace echelon
