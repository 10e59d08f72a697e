#include "launch/command/job.h"

#include <gtest/gtest.h>

#include "cluster/base/error.h"

namespace echelon {
namespace {

bool has(const ChildOptions& child, const std::string& first, const std::string& second) {
  auto at = std::find(child.arguments.begin(), child.arguments.end(), first);
  return at != child.arguments.end() && at + 1 != child.arguments.end() && *(at + 1) == second;
}

std::string variable(const ChildOptions& child, const std::string& name) {
  for (const auto& [key, value] : child.environment) {
    if (key == name) return value;
  }
  return "";
}

ChildOptions job(StartArguments start, const Machine& machine) {
  start.launcher = "mpirun";
  return child_of(place_ranks(start, machine), machine, "echelon-rank", {"train"});
}

const Machine kFour = {.processors = 4, .pinnable = true};

TEST(Job, FewRanksAreBoundToTheirShareOfProcessors) {
  ChildOptions child = job({.ranks = 2}, kFour);
  EXPECT_TRUE(has(child, "--bind-to", "core"));
  EXPECT_TRUE(has(child, "--map-by", "slot:PE=2"));
  EXPECT_EQ(variable(child, "OMP_NUM_THREADS"), "2");
}

TEST(Job, ManyRanksAreNotBoundAndGiveWay) {
  ChildOptions child = job({.ranks = 6}, kFour);
  EXPECT_TRUE(has(child, "--bind-to", "none"));
  EXPECT_EQ(variable(child, "OMP_NUM_THREADS"), "1");
  EXPECT_EQ(variable(child, "OMPI_MCA_mpi_yield_when_idle"), "1");
}

TEST(Job, WithoutFlagsThereIsARankForEachGpuElseOne) {
  EXPECT_EQ(place_ranks({.launcher = "mpirun"}, kFour).ranks, 1);
  EXPECT_EQ(place_ranks({.launcher = "mpirun"}, kFour).starter, Starter::direct);
  Machine gpus = kFour;
  gpus.gpus = {"H100", "H100"};
  EXPECT_EQ(place_ranks({.launcher = "mpirun"}, gpus).ranks, 2);
}

TEST(Job, HostsGoToMpirunWithTheirRanks) {
  ChildOptions child = job({.hosts = "a:2,b.example.org:3,c"}, kFour);
  EXPECT_TRUE(has(child, "--host", "a:2,b.example.org:3,c:1"));
  EXPECT_TRUE(has(child, "-n", "6"));
  EXPECT_THROW(job({.ranks = 7, .hosts = "a:2"}, kFour), Error);
}

TEST(Job, HostileHostsAreRefused) {
  for (const char* hosts :
       {"-o", "a b", "a;b", "a:0", "a:-1", "a:x", "a:99999999999", "$(x)", "a\nb", "n[0-4294967295]"}) {
    EXPECT_THROW(parse_hosts(hosts), Error) << hosts;
  }
}

TEST(Job, SrunNeedsAnAllocation) {
  ASSERT_EQ(std::getenv("SLURM_JOB_ID"), nullptr);
  EXPECT_THROW(place_ranks({.launcher = "srun"}, kFour), Error);
}

}  // namespace
}  // namespace echelon
