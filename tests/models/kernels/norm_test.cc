// Norm kernels against float64: errors of 1e-5 of the largest term, and one rounding to the stored type.
#include "models/kernels/norm_kernel.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/models/kernels/values.h"

namespace echelon {
namespace {

using testing::kRounding;
using testing::Values;

constexpr float kEpsilon = 1e-5f;

/// Inputs, and both directions in float64.
template <class T>
struct Norm {
  Norm(int64_t rows, int64_t columns, bool layer)
      : rows(rows),
        columns(columns),
        layer(layer),
        x(rows * columns, 2, 1),
        dy(rows * columns, 1, 2),
        residual(rows * columns, 1, 3),
        weight(columns, 1, 4),
        bias(columns, 1, 5),
        y(rows * columns),
        dx(rows * columns),
        mean(rows + 1),
        scale(rows + 1),
        dweight(columns + 1, 0.5f),
        dbias(columns + 1, 0.5f) {
    summarise();
  }

  NormRows<T> kernel() {
    return {x.data(), weight.data(), layer ? bias.data() : nullptr, mean.data(), scale.data(), rows, columns};
  }
  double normalised(int64_t r, int64_t c) { return (x.at(r * columns + c) - means[r]) * scales[r]; }
  double dx_of(int64_t r, int64_t c) {
    return (dy.at(r * columns + c) * weight.at(c) - gradients[r] - normalised(r, c) * projections[r]) * scales[r];
  }
  void summarise() {
    auto width = static_cast<double>(columns);
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0, squares = 0, gradient = 0, projection = 0;
      for (int64_t c = 0; c < columns && layer; ++c) sum += x.at(r * columns + c);
      means.push_back(sum / width);
      for (int64_t c = 0; c < columns; ++c) squares += std::pow(x.at(r * columns + c) - means[r], 2);
      scales.push_back(1 / std::sqrt(squares / width + kEpsilon));
      for (int64_t c = 0; c < columns; ++c) {
        double g = dy.at(r * columns + c) * weight.at(c) / width;
        gradient += layer ? g : 0;
        projection += g * normalised(r, c);
      }
      gradients.push_back(gradient);
      projections.push_back(projection);
    }
  }

  int64_t rows, columns;
  bool layer;
  Values<T> x, dy, residual, weight, bias, y, dx;
  std::vector<float> mean, scale, dweight, dbias;
  std::vector<double> means, scales, gradients, projections;  // of rows, in float64
};

template <class T>
double bound(double expected, double scale) {
  return 1.01 * kRounding<T> * std::abs(expected) + 1e-5 * (1 + scale);
}

template <class T>
void check_forward(int64_t rows, int64_t columns, bool layer) {
  Norm<T> n(rows, columns, layer);
  norm_forward(n.kernel(), kEpsilon, n.y.data());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) {
      double expected = n.normalised(r, c) * n.weight.at(c) + (layer ? n.bias.at(c) : 0);
      ASSERT_NEAR(n.y.at(r * columns + c), expected, bound<T>(expected, std::abs(expected))) << r << ", " << c;
    }
  }
}

template <class T>
void check_backward(int64_t rows, int64_t columns, bool layer, bool with_residual) {
  Norm<T> n(rows, columns, layer);
  norm_forward(n.kernel(), kEpsilon, n.y.data());
  norm_backward(n.kernel(), n.dy.data(), with_residual ? n.residual.data() : nullptr, n.dx.data(), n.dweight.data(),
                n.dbias.data());
  for (int64_t c = 0; c < columns; ++c) {
    double dweight = 0.5, dbias = 0.5;
    for (int64_t r = 0; r < rows; ++r) {
      double expected = n.dx_of(r, c) + (with_residual ? n.residual.at(r * columns + c) : 0);
      ASSERT_NEAR(n.dx.at(r * columns + c), expected, bound<T>(expected, n.scales[r] * 3)) << r << ", " << c;
      dweight += n.dy.at(r * columns + c) * n.normalised(r, c);
      dbias += layer ? n.dy.at(r * columns + c) : 0;
    }
    ASSERT_NEAR(n.dweight[c], dweight, 1e-4);
    ASSERT_NEAR(n.dbias[c], dbias, 1e-5);
  }
}

TEST(NormKernel, ForwardIsTheFormula) {
  for (int64_t rows : {0, 1, 5}) {
    for (int64_t columns : {1, 2, 33, 384}) {
      for (bool layer : {true, false}) {
        check_forward<float>(rows, columns, layer);
        check_forward<Bfloat16>(rows, columns, layer);
      }
    }
  }
}

TEST(NormKernel, BackwardIsItsDerivativeAndAddsToWeightGradients) {
  for (int64_t columns : {2, 33, 130}) {
    for (bool layer : {true, false}) {
      for (bool with_residual : {true, false}) {
        check_backward<float>(5, columns, layer, with_residual);
        check_backward<Bfloat16>(5, columns, layer, with_residual);
      }
    }
  }
}

}  // namespace
}  // namespace echelon
