// Sums over ranks: order, rounding, special values.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "comm/backends/reduction.h"
#include "tests/comm/values.h"

namespace echelon::testing {

namespace {

at::Tensor reduced(const std::vector<at::Tensor>& all, Reduce op) {
  at::Tensor out = at::empty_like(all[0]);
  std::vector<const void*> sources;
  for (const at::Tensor& tensor : all) sources.push_back(tensor.const_data_ptr());
  reduce(out.data_ptr(), sources.data(), static_cast<int>(sources.size()), out.numel(), out.scalar_type(), op, false);
  return out;
}

TEST(Reduction, SumsInTheOrderOfTheSources) {
  std::vector<at::Tensor> all = {at::full({3}, 1e8f), at::full({3}, 1.0f), at::full({3}, -1e8f)};
  EXPECT_EQ(reduced(all, Reduce::sum)[0].item<float>(), 0.0f);   // 1e8 + 1 rounds to 1e8
  std::swap(all[1], all[2]);
  EXPECT_EQ(reduced(all, Reduce::sum)[0].item<float>(), 1.0f);
}

TEST(Reduction, RoundsBfloat16Once) {
  // Eight halves of a last place: rounded one by one they all vanish.
  std::vector<at::Tensor> all = {at::full({5}, 1.0, at::kBFloat16)};
  for (int i = 0; i < 8; ++i) all.push_back(at::full({5}, 0.00390625, at::kBFloat16));
  EXPECT_EQ(reduced(all, Reduce::sum)[4].item<double>(), 1.03125);
}

TEST(Reduction, RoundsBfloat16AsTorchDoes) {
  at::Tensor special = at::tensor({std::numeric_limits<float>::infinity(), -0.0f, 3.3895314e38f, 1e-40f, -1.0f});
  at::Tensor x = at::cat({special, values(0, 100'000, at::kFloat)}).to(at::kBFloat16);
  at::Tensor y = at::cat({special.neg().mul(0.5), values(1, 100'000, at::kFloat)}).to(at::kBFloat16);
  at::Tensor expected = x.to(at::kFloat).add(y.to(at::kFloat)).to(at::kBFloat16);
  at::Tensor got = reduced({x, y}, Reduce::sum);
  EXPECT_TRUE(at::equal(got.isnan(), expected.isnan()));
  EXPECT_TRUE(same_bits(got.nan_to_num(), expected.nan_to_num()));
}

TEST(Reduction, LetsNanWinOnEitherSide) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    at::Tensor nan = at::full({4}, std::nan(""), dtype), one = at::ones({4}, dtype);
    for (Reduce op : {Reduce::sum, Reduce::max, Reduce::min}) {
      EXPECT_TRUE(reduced({nan, one}, op).isnan().all().item<bool>());
      EXPECT_TRUE(reduced({one, nan}, op).isnan().all().item<bool>());
    }
  }
}

TEST(Reduction, ComparesIntegersWithTheirSign) {
  std::vector<at::Tensor> all = {at::full({3}, -5, at::kLong), at::full({3}, 2, at::kLong)};
  EXPECT_EQ(reduced(all, Reduce::max)[0].item<int64_t>(), 2);
  EXPECT_EQ(reduced(all, Reduce::min)[0].item<int64_t>(), -5);
  EXPECT_EQ(reduced(all, Reduce::sum)[0].item<int64_t>(), -3);
}

TEST(Reduction, MayWriteOverAnyOfItsSources) {
  for (int into = 0; into < 3; ++into) {
    auto all = values_of_all(3, 5000, at::kFloat);
    at::Tensor expected = sum_of(all);
    std::vector<const void*> sources;
    for (const at::Tensor& tensor : all) sources.push_back(tensor.const_data_ptr());
    at::Tensor& out = all[static_cast<size_t>(into)];
    reduce(out.data_ptr(), sources.data(), 3, 5000, at::kFloat, Reduce::sum, false);
    EXPECT_TRUE(same_bits(out, expected));
  }
}

}  // namespace

}  // namespace echelon::testing
