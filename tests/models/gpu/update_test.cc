// AdamW's step and sums of squares on a GPU against float64: errors of 1e-6 in float32, of 1e-14 in float64.
#include <cmath>

#include "runtime/optimizers/adamw_kernel.h"
#include "runtime/optimizers/square_sum_kernel.h"
#include "tests/models/gpu/on_gpu.h"

namespace echelon {
namespace {

using testing::draws;
using testing::expect_near;
using testing::expect_same_bits;
using testing::on_gpu;

const std::vector<int64_t> kCounts{0, 1, 7, 1003, 3000001};

/// Weight, first and second moment.
using State = std::vector<at::Tensor>;

template <class Real>
constexpr AdamWFactors<Real> kFactors{Real(0.9), Real(0.99), Real(1e-8), Real(0.999), Real(0.02), Real(0.3), Real(0.5)};

State expected_of(const State& given, const at::Tensor& gradient, const AdamWFactors<double>& f) {
  at::Tensor scaled = gradient * f.scale, first = given[1] + (scaled - given[1]) * (1 - f.beta1);
  at::Tensor second = given[2] * f.beta2 + scaled.square() * (1 - f.beta2);
  return {given[0] * f.keep - first * f.step_size / (second.sqrt() / f.root_correction + f.epsilon), first, second};
}

template <class Real>
void check_step(int64_t count, at::ScalarType type, bool shifted, double bound) {
  State given{draws({count}, type), draws({count}, type), draws({count}, type).abs()};
  at::Tensor gradient = draws({count}, type);
  auto run = [&] {
    State s;
    for (const at::Tensor& each : given) s.push_back(on_gpu(each, type, shifted));
    gpu::adamw_step(s[0].data_ptr<Real>(), on_gpu(gradient, type, shifted).template data_ptr<Real>(),
                    s[1].data_ptr<Real>(), s[2].data_ptr<Real>(), count, kFactors<Real>);
    return s;
  };
  const AdamWFactors<Real>& f = kFactors<Real>;
  State got = run(), again = run();
  State expected =
      expected_of(given, gradient, {f.beta1, f.beta2, f.epsilon, f.keep, f.step_size, f.root_correction, f.scale});
  for (size_t i = 0; i < got.size(); ++i) {
    expect_near(got[i], expected[i], bound, bound);
    expect_same_bits(got[i], again[i]);
  }
}

TEST(GpuAdamW, TakesTheStepOfTheFormula) {
  for (int64_t count : kCounts) {
    for (bool shifted : {false, true}) {
      check_step<float>(count, at::kFloat, shifted, 2e-6);
      check_step<double>(count, at::kDouble, shifted, 1e-13);
    }
  }
}

template <class Real>
void check_sum(int64_t count, at::ScalarType type) {
  at::Tensor x = draws({count}, type), there = on_gpu(x, type, true);
  auto run = [&] {
    at::Tensor sums = at::empty({kSquareSums}, there.options().dtype(at::kDouble));
    gpu::square_sums(there.data_ptr<Real>(), count, sums.data_ptr<double>());
    return sums;
  };
  at::Tensor got = run();
  expect_same_bits(got, run());
  double expected = x.square().sum().item<double>();
  EXPECT_NEAR(got.sum().item<double>(), expected, 1e-12 * expected);
}

TEST(GpuSquareSums, AreTheSumOfSquares) {
  for (int64_t count : kCounts) {
    check_sum<float>(count, at::kFloat);
    check_sum<double>(count, at::kDouble);
  }
}

}  // namespace
}  // namespace echelon
