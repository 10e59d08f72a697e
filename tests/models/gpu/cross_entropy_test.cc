// Row kernels of the cross-entropy on a GPU against float64: relative errors of 1e-5, and one rounding to the stored
// type.
#include "models/kernels/cross_entropy_kernel.h"

#include "tests/models/gpu/on_gpu.h"

namespace echelon {
namespace {

using testing::draws;
using testing::expect_near;
using testing::expect_same_bits;
using testing::on_gpu;
using testing::read;
using testing::written;

/// What the three steps make of logits.
struct Steps {
  at::Tensor largest, sums, of_target, gradient;
};

template <class T>
Steps by_kernel(at::Tensor logits, const at::Tensor& targets) {
  int64_t rows = logits.size(0), columns = logits.size(1);
  at::Tensor here = targets.to(at::kCUDA);
  auto room = [&] { return at::empty({rows}, logits.options().dtype(at::kFloat)); };
  Steps s{room(), room(), room(), logits};
  float *largest = s.largest.data_ptr<float>(), *sums = s.sums.data_ptr<float>();
  gpu::row_max(read<T>(logits), rows, columns, largest);
  gpu::row_sum(read<T>(logits), rows, columns, read<int64_t>(here), largest, sums, s.of_target.data_ptr<float>());
  gpu::row_gradient(written<T>(logits), rows, columns, read<int64_t>(here), largest, sums);
  return s;
}

/// `targets` at or behind the last column stand on another rank.
Steps reference(const at::Tensor& logits, const at::Tensor& targets) {
  int64_t columns = logits.size(1);
  at::Tensor largest = columns > 0 ? logits.amax(1) : at::full({logits.size(0)}, -1e30, at::kDouble);
  at::Tensor shifted = logits - largest.unsqueeze(1), sums = shifted.exp().sum(1);
  at::Tensor one_hot = at::arange(columns).unsqueeze(0).eq(targets.unsqueeze(1)).to(at::kDouble);
  return {largest, sums, (shifted * one_hot).sum(1), shifted.exp() / sums.unsqueeze(1) - one_hot};
}

void check(int64_t rows, int64_t columns, at::ScalarType type, bool shifted) {
  SCOPED_TRACE(::testing::Message() << rows << " x " << columns << ", " << c10::toString(type));
  at::Tensor logits = draws({rows, columns}, type, 3), targets = at::randint(0, columns + 2, {rows}, at::kLong);
  auto run = [&] {
    at::Tensor there = on_gpu(logits, type, shifted);
    return type == at::kFloat ? by_kernel<float>(there, targets) : by_kernel<Bfloat16>(there, targets);
  };
  Steps got = run(), again = run(), expected = reference(logits, targets);
  expect_near(got.largest, expected.largest, 1e-6, 0);
  expect_near(got.sums, expected.sums, 1e-5, 0);
  expect_near(got.of_target, expected.of_target, 1e-6, 1e-5);
  expect_near(got.gradient, expected.gradient, 1e-5, 1e-6);
  expect_same_bits(got.sums, again.sums);
  expect_same_bits(got.gradient, again.gradient);
}

TEST(GpuCrossEntropy, StepsAreTheFormula) {
  for (at::ScalarType type : testing::kTypes) {
    for (int64_t rows : {0, 1, 3, 130}) {
      for (int64_t columns : {0, 1, 7, 64, 1003, 50257}) {
        check(rows, columns, type, false);
        check(rows, columns, type, true);
      }
    }
  }
}

}  // namespace
}  // namespace echelon
