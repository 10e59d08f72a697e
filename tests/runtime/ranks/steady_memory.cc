// A steady step takes no memory from the system: what it took in the first steps is kept and used again. The logits of
// a chunk are larger than any block that glibc keeps of its own accord.
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "runtime/memory.h"
#include "runtime/trainer.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/test_session.h"

namespace echelon::testing {

namespace {

struct Taken {
  int64_t fresh_pages, address_space;  ///< pages that were touched for the first time so far; bytes that are mapped
};

Taken taken() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  return {usage.ru_minflt, pages * ::sysconf(_SC_PAGESIZE)};
}

TEST(SteadyMemory, NoStepTakesFromTheSystem) {
  keep_large_blocks();
  at::set_num_threads(1);
  Recipe recipe = tiny_recipe("base/tiny_decoder_clm", {"model.architecture.vocabulary=40000", "batch.global=16",
                                                        "batch.micro=8", "data.train.sequence_length=32"});
  Mesh mesh(session().world(), {});
  Trainer trainer(recipe, mesh);
  for (int64_t step = 1; step <= 4; ++step) trainer.step(step);
  Taken before = taken();
  for (int64_t step = 5; step <= 12; ++step) trainer.step(step);
  Taken after = taken();
  constexpr int64_t kFew = 64 << 10;
  EXPECT_LT((after.fresh_pages - before.fresh_pages) * ::sysconf(_SC_PAGESIZE), kFew);
  EXPECT_EQ(after.address_space, before.address_space);
}

}  // namespace

}  // namespace echelon::testing
