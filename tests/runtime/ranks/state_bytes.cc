// Bytes of state per parameter and rank, counted where memory is handed out: LibTorch's allocator and the shared
// windows.
#include <atomic>
#include <fstream>
#include <sstream>

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <gtest/gtest.h>

#include "models/model.h"
#include "runtime/optimizer.h"
#include "runtime/optimizers/adamw.pb.h"
#include "runtime/trainer.h"
#include "tests/test_session.h"

namespace echelon {
namespace {

std::atomic<int64_t> live_bytes = 0;

/// LibTorch's allocator, with a count of what it has given and not got back.
class CountingAllocator : public c10::Allocator {
 public:
  at::DataPtr allocate(size_t bytes) override {
    auto* block = new Block{c10::GetDefaultCPUAllocator()->allocate(bytes), static_cast<int64_t>(bytes)};
    live_bytes += block->bytes;
    return {block->memory.get(), block, &free_block, at::kCPU};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

 private:
  struct Block {
    at::DataPtr memory;
    int64_t bytes;
  };
  static void free_block(void* context) {
    auto* block = static_cast<Block*>(context);
    live_bytes -= block->bytes;
    delete block;
  }
};

/// Bytes of shared windows in this process's address space; a window holds a slice of every rank of its group.
int64_t window_bytes() {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  int64_t sum = 0;
  while (std::getline(maps, line)) {
    if (line.find("memfd:") == std::string::npos) continue;
    uint64_t begin = 0, end = 0;
    char dash;
    std::istringstream(line) >> std::hex >> begin >> dash >> end;
    sum += static_cast<int64_t>(end - begin);
  }
  return sum;
}

Architecture architecture() {
  // Odd sizes, and large enough that alignment is small beside them.
  return {.vocabulary = 3001,
          .width = 260,
          .layers = 2,
          .heads = 4,
          .kv_heads = 4,
          .head_width = 65,
          .feed_forward = 1021,
          .max_positions = 127,
          .norm_epsilon = 1e-5};
}

double counted_bytes_per_parameter(const Mesh& mesh, ZeroOptions options) {
  int64_t heap = live_bytes, windows = window_bytes();
  Zero zero(mesh, options);
  Model model(architecture(), zero);
  model.allocate();
  Registry registry;
  register_builtin_methods(registry);
  google::protobuf::Any adamw;
  adamw.PackFrom(AdamW());
  auto optimizer = registry.make<Optimizer>(adamw, {});
  std::vector<Owned> owned;
  for (FlatShard* shard : model.weights().trained()) {
    owned.push_back(own(*shard, *optimizer, std::vector<GroupRule>(shard->segments().size())));
  }
  double own_windows = static_cast<double>(window_bytes() - windows) / mesh.dp().size();
  return (static_cast<double>(live_bytes - heap) + own_windows) / static_cast<double>(model.weights().elements());
}

TEST(StateBytes, AreThoseOfTheFormulaAtEveryStage) {
  static CountingAllocator counting;
  c10::SetCPUAllocator(&counting, /*priority=*/100);
  const Group& world = testing::session().world();
  Mesh mesh(world, {});
  double d = world.size();
  double float32[] = {16, 8 + 8 / d, 4 + 12 / d, 16 / d};
  double bfloat16[] = {18, 6 + 12 / d, 2 + 16 / d, 18 / d};
  for (int stage = 0; stage <= 3; ++stage) {
    SCOPED_TRACE("ZeRO-" + std::to_string(stage));
    EXPECT_NEAR(counted_bytes_per_parameter(mesh, {.stage = stage}), float32[stage], 0.02 * float32[stage]);
    EXPECT_NEAR(counted_bytes_per_parameter(mesh, {.stage = stage, .values = at::kBFloat16}), bfloat16[stage],
                0.02 * bfloat16[stage]);
  }
}

}  // namespace
}  // namespace echelon
