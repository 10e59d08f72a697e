// Activations against float64: absolute errors of 1e-6 (in units of the gradient) and one rounding to the stored type.
#include <cmath>

#include <gtest/gtest.h>

#include "models/kernels/activation_kernel.h"
#include "tests/models/kernels/values.h"

namespace echelon {
namespace {

using testing::kLengths;
using testing::kRounding;
using testing::Values;

constexpr Activation kAll[] = {Activation::gelu, Activation::gelu_tanh, Activation::silu, Activation::relu};

double value_of(Activation activation, double x) {
  switch (activation) {
    case Activation::gelu:
      return x * 0.5 * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::relu:
      return std::max(x, 0.0);
  }
  return NAN;
}

double slope_of(Activation activation, double x) {
  if (activation == Activation::relu) return x > 0;
  double h = 1e-5;
  return (value_of(activation, x + h) - value_of(activation, x - h)) / (2 * h);
}

template <class T>
double bound(double expected, double scale) {
  return kRounding<T> * 1.01 * std::abs(expected) + 1e-6 * scale;
}

template <class T>
void check_forward(Activation activation, int64_t count, bool gated) {
  Values<T> x(count), up(count, 1, 2), y(count);
  activation_forward(activation, x.data(), gated ? up.data() : nullptr, y.data(), count);
  for (int64_t i = 0; i < count; ++i) {
    double factor = gated ? up.at(i) : 1, expected = value_of(activation, x.at(i)) * factor;
    ASSERT_NEAR(y.at(i), expected, bound<T>(expected, (1 + std::abs(x.at(i))) * std::abs(factor))) << x.at(i);
  }
}

template <class T>
void check_backward(Activation activation, int64_t count, bool gated) {
  Values<T> x(count), up(count, 1, 2), dy(count, 1, 3), dx(count), dup(count);
  activation_backward(activation, x.data(), gated ? up.data() : nullptr, dy.data(), dx.data(),
                      gated ? dup.data() : nullptr, count);
  for (int64_t i = 0; i < count; ++i) {
    double factor = dy.at(i) * (gated ? up.at(i) : 1), expected = slope_of(activation, x.at(i)) * factor;
    ASSERT_NEAR(dx.at(i), expected, bound<T>(expected, 2 * std::abs(factor))) << x.at(i);
    if (!gated) continue;
    expected = value_of(activation, x.at(i)) * dy.at(i);
    ASSERT_NEAR(dup.at(i), expected, bound<T>(expected, (1 + std::abs(x.at(i))) * std::abs(dy.at(i)))) << x.at(i);
  }
}

TEST(ActivationKernel, ForwardIsTheFormula) {
  for (Activation activation : kAll) {
    for (int64_t count : kLengths) {
      for (bool gated : {false, true}) {
        check_forward<float>(activation, count, gated);
        check_forward<Bfloat16>(activation, count, gated);
      }
    }
  }
}

TEST(ActivationKernel, BackwardIsItsDerivative) {
  for (Activation activation : kAll) {
    for (int64_t count : kLengths) {
      for (bool gated : {false, true}) {
        check_backward<float>(activation, count, gated);
        check_backward<Bfloat16>(activation, count, gated);
      }
    }
  }
}

TEST(ActivationKernel, FarFromZeroItIsZeroOrTheIdentity) {
  for (Activation activation : kAll) {
    float x[] = {-1e4f, -100, 100, 1e4f}, y[4];
    activation_forward(activation, x, nullptr, y, 4);
    EXPECT_LT(std::abs(y[0]), 1e-30);
    EXPECT_LT(std::abs(y[1]), 1e-30);
    EXPECT_EQ(y[2], 100);
    EXPECT_EQ(y[3], 1e4f);
  }
}

TEST(ActivationKernel, WhatIsNotANumberStaysSo) {
  for (Activation activation : kAll) {
    float x = NAN, y = 0;
    activation_forward(activation, &x, nullptr, &y, 1);
    EXPECT_TRUE(std::isnan(y));
  }
}

}  // namespace
}  // namespace echelon
