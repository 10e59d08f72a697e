// Products of few rows against float64. Sums are float32: the error grows with the square root of the depth.
#include "models/kernels/few_rows_kernel.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/models/kernels/values.h"

namespace echelon {
namespace {

using testing::kRounding;
using testing::Values;

struct Case {
  int64_t rows, depth, outputs;
};
const Case kCases[] = {{1, 384, 7}, {1, 1, 1}, {3, 65, 9}, {4, 33, 4}, {16, 100, 21}, {5, 0, 3}, {0, 8, 5}, {2, 8, 0}};

template <class T>
void check(const Case& c, bool with_bias) {
  int64_t x_row = c.depth + 3, y_row = c.outputs + 2;
  Values<T> x(c.rows * x_row, 1, 1), w(c.outputs * c.depth, 1, 2), bias(c.outputs, 1, 3), y(c.rows * y_row, 1, 4);
  FewRows<T> product{c.rows, c.depth, x.data(), x_row, w.data(), with_bias ? bias.data() : nullptr, y.data(), y_row};
  double between = c.rows > 0 ? y.at(c.outputs) : 0;
  int64_t middle = c.outputs / 2;
  few_rows_product(product, middle, c.outputs);
  few_rows_product(product, 0, middle);
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t o = 0; o < c.outputs; ++o) {
      double sum = with_bias ? bias.at(o) : 0, magnitude = std::abs(sum);
      for (int64_t i = 0; i < c.depth; ++i) {
        sum += x.at(r * x_row + i) * w.at(o * c.depth + i);
        magnitude += std::abs(x.at(r * x_row + i) * w.at(o * c.depth + i));
      }
      double bound = kRounding<T> * std::abs(sum) + 8 * kRounding<float> * magnitude;
      EXPECT_LE(std::abs(y.at(r * y_row + o) - sum), bound) << c.rows << " " << c.depth << " " << r << " " << o;
    }
  }
  EXPECT_EQ(c.rows > 0 ? y.at(c.outputs) : 0, between) << "wrote between rows";
}

TEST(FewRows, AreTheDefinition) {
  for (const Case& c : kCases) {
    for (bool with_bias : {false, true}) {
      check<float>(c, with_bias);
      check<Bfloat16>(c, with_bias);
    }
  }
}

}  // namespace
}  // namespace echelon
