// Dropout on a GPU: the bits of the processor.
#include "models/kernels/dropout.h"

#include "tests/models/gpu/on_gpu.h"

namespace echelon {
namespace {

using testing::draws;
using testing::expect_same_bits;
using testing::on_gpu;

TEST(GpuDropout, HasTheBitsOfTheProcessor) {
  for (at::ScalarType type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    for (int64_t rows : {0, 1, 5, 300}) {
      for (int64_t columns : {1, 7, 64, 1003, 5000}) {
        for (bool shifted : {false, true}) {
          at::Tensor x = draws({rows, columns}, type), keys = at::randint(INT64_MIN, INT64_MAX, {rows}, at::kLong);
          at::Tensor expected = keyed_dropout(x.to(type), keys, 0.3, 11);
          expect_same_bits(keyed_dropout(on_gpu(x, type, shifted), keys, 0.3, 11).cpu(), expected);
        }
      }
    }
  }
}

}  // namespace
}  // namespace echelon
