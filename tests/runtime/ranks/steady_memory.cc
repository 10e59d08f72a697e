// A steady step takes no memory from the system: what it took in the first steps is kept and used again. The logits of
// a chunk are larger than any block that glibc keeps of its own accord.
#include <sys/resource.h>
#include <unistd.h>

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "runtime/memory.h"
#include "runtime/trainer.h"
#include "tests/runtime/ranks/tiny_recipe.h"
#include "tests/test_session.h"

namespace echelon::testing {

namespace {

int64_t fresh_bytes() {  // of pages that were touched for the first time so far
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt * ::sysconf(_SC_PAGESIZE);
}

TEST(SteadyMemory, StepsTakeNothingFromTheSystem) {
  keep_large_blocks();
  at::set_num_threads(1);
  Recipe recipe = tiny_recipe("base/tiny_decoder_clm", {"model.architecture.vocabulary=40000", "batch.global=16",
                                                        "batch.micro=8", "data.train.sequence_length=32"});
  Mesh mesh(session().world(), {});
  Trainer trainer(recipe, mesh);
  for (int64_t step = 1; step <= 4; ++step) trainer.step(step);
  constexpr int64_t kFew = 64 << 10;
  int taking = 0;
  for (int64_t step = 5; step <= 16; ++step) {
    int64_t before = fresh_bytes();
    trainer.step(step);
    taking += fresh_bytes() - before > kFew;
  }
  // A heap in pieces may still grow by a block, once or twice; what is given back is taken again in every step.
  EXPECT_LE(taking, 2) << "of twelve steps";
}

}  // namespace

}  // namespace echelon::testing
