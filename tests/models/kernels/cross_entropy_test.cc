// Row kernels of the cross-entropy against float64: relative errors of 3e-6, and one rounding to the stored type.
#include "models/kernels/cross_entropy_kernel.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/models/kernels/values.h"

namespace echelon {
namespace {

using testing::kLengths;
using testing::kRounding;
using testing::Values;

/// What the three steps make of `rows` rows, the last of which has its target on another rank.
template <class T>
struct Steps {
  Steps(int64_t rows, int64_t columns)
      : logits(rows * columns), given(logits), targets(rows), largest(rows), sums(rows), of_target(rows) {
    for (int64_t r = 0; r < rows; ++r) targets[r] = r + 1 == rows ? columns : (r * 5) % std::max<int64_t>(1, columns);
    row_max(logits.data(), rows, columns, largest.data());
    row_sum(logits.data(), rows, columns, targets.data(), largest.data(), sums.data(), of_target.data());
    row_gradient(logits.data(), rows, columns, targets.data(), largest.data(), sums.data());
  }
  Values<T> logits, given;
  std::vector<int64_t> targets;
  std::vector<float> largest, sums, of_target;
};

template <class T>
void check(int64_t rows, int64_t columns) {
  Steps<T> steps(rows, columns);
  for (int64_t r = 0; r < rows; ++r) {
    auto logit = [&](int64_t c) { return steps.given.at(r * columns + c); };
    double largest = -1e30, sum = 0;
    for (int64_t c = 0; c < columns; ++c) largest = std::max(largest, logit(c));
    for (int64_t c = 0; c < columns; ++c) sum += std::exp(logit(c) - largest);
    ASSERT_FLOAT_EQ(steps.largest[r], static_cast<float>(largest));
    ASSERT_NEAR(steps.sums[r], sum, 3e-6 * sum);
    int64_t target = steps.targets[r];
    bool here = target < columns;
    ASSERT_NEAR(steps.of_target[r], here ? logit(target) - largest : 0, 1e-6 * (1 + std::abs(largest)));
    for (int64_t c = 0; c < columns; ++c) {
      double expected = std::exp(logit(c) - largest) / sum - (c == target);
      ASSERT_NEAR(steps.logits.at(r * columns + c), expected, (3e-6 + 1.01 * kRounding<T>)*std::abs(expected) + 1e-7)
          << r << ", " << c;
    }
  }
}

TEST(CrossEntropyKernel, StepsAreTheFormula) {
  for (int64_t rows : {0, 1, 3}) {
    for (int64_t columns : kLengths) {
      check<float>(rows, columns);
      check<Bfloat16>(rows, columns);
    }
    check<float>(rows, 5001);
  }
}

TEST(CrossEntropyKernel, WhatIsNotANumberShowsInTheSum) {
  float logits[] = {1, NAN, 2}, largest = 0, sum = 0, of_target = 0;
  int64_t target = 0;
  row_max(logits, 1, 3, &largest);
  row_sum(logits, 1, 3, &target, &largest, &sum, &of_target);
  EXPECT_TRUE(std::isnan(sum));
}

}  // namespace
}  // namespace echelon
