// The gradient of a lookup on a GPU: the bits of the processor, which adds rows in the same order.
#include "models/kernels/add_rows_kernel.h"

#include "tests/models/gpu/on_gpu.h"

namespace echelon {
namespace {

using testing::draws;
using testing::expect_same_bits;
using testing::on_gpu;
using testing::read;
using testing::with_type;

void check(int64_t count, int64_t width, int64_t ids_in_use, at::ScalarType type, bool muted) {
  at::Tensor ids = at::randint(0, ids_in_use, {count}, at::kLong), rows = draws({count, width}, type);
  at::Tensor mute = muted ? at::rand({count}).lt(0.3) : at::Tensor(), table = draws({20, width}, at::kFloat);
  auto [sorted, order] = ids.to(at::kCUDA).sort(/*stable=*/true, 0, /*descending=*/false);
  at::Tensor narrow = rows.to(type), there = on_gpu(rows, type), here = table.to(at::kFloat);
  at::Tensor mute_there = muted ? mute.to(at::kCUDA) : at::Tensor(), got = on_gpu(table, at::kFloat);
  with_type(type, [&]<class T>(T*) {
    add_rows(here.data_ptr<float>(), read<T>(narrow), read<int64_t>(ids), read<bool>(mute), count, width, 0, width);
    gpu::add_sorted_rows(got.data_ptr<float>(), read<T>(there),
                         {read<int64_t>(sorted), read<int64_t>(order), read<bool>(mute_there), count}, width);
  });
  expect_same_bits(got.cpu(), here);
}

TEST(GpuAddRows, HasTheBitsOfTheProcessor) {
  for (at::ScalarType type : testing::kTypes) {
    for (int64_t count : {0, 1, 5, 3000}) {
      for (int64_t width : {1, 33, 768}) {
        for (int64_t ids_in_use : {1, 20}) {
          check(count, width, ids_in_use, type, false);
          check(count, width, ids_in_use, type, true);
        }
      }
    }
  }
}

}  // namespace
}  // namespace echelon
