// Rotary positions by the kernel against the definition in float64. Angles are float32 and grow with the position:
// results stay within 2e-5 of it up to position 200, in bfloat16 within two roundings.
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "models/layers/rotary.h"

namespace echelon {
namespace {

Architecture architecture() {
  Architecture a;
  a.rope_theta = 1000;
  a.rope_linear_factor = 2;
  return a;
}

at::Tensor rows(int64_t batch, int64_t heads, int64_t tokens, int64_t width) {
  at::manual_seed(3);
  return at::randn({batch, tokens, heads, width}, at::kDouble).to(at::kBFloat16).to(at::kDouble).transpose(1, 2);
}

/// [B, H, T, d], `direction` -1: back.
at::Tensor reference(const at::Tensor& x, int64_t first, double direction = 1) {
  int64_t half = x.size(3) / 2;
  at::Tensor y = at::empty_like(x);
  for (int64_t t = 0; t < x.size(2); ++t) {
    for (int64_t i = 0; i < half; ++i) {
      double angle = direction * static_cast<double>(first + t) / 2 *
                     std::pow(1000.0, -static_cast<double>(i) / static_cast<double>(half));
      at::Tensor a = x.select(2, t).select(2, i), b = x.select(2, t).select(2, i + half);
      y.select(2, t).select(2, i).copy_(a * std::cos(angle) - b * std::sin(angle));
      y.select(2, t).select(2, i + half).copy_(b * std::cos(angle) + a * std::sin(angle));
    }
  }
  return y;
}

double error(const at::Tensor& x, const at::Tensor& wanted) {
  return wanted.numel() == 0 ? 0 : (x.to(at::kDouble) - wanted).abs().max().item<double>();
}

struct Case {
  int64_t batch, heads, tokens, width, first;
};
const Case kCases[] = {{2, 3, 65, 64, 0}, {1, 2, 1, 64, 130}, {2, 1, 7, 10, 5}, {1, 4, 100, 2, 100}, {1, 2, 0, 8, 3}};

TEST(Rotary, IsTheDefinitionForwardAndBackward) {
  for (const Case& c : kCases) {
    at::Tensor exact = rows(c.batch, c.heads, c.tokens, c.width), gradient = exact.flip(0) * 0.5;
    for (auto [type, bound] :
         {std::pair(at::kDouble, 1e-13), std::pair(at::kFloat, 2e-5), std::pair(at::kBFloat16, 4e-2)}) {
      at::Tensor x = exact.to(type).detach().requires_grad_();
      at::Tensor y = rotate(x, c.first, architecture());
      y.backward(gradient.to(type));
      EXPECT_LT(error(y, reference(exact, c.first)), bound);
      EXPECT_LT(error(x.grad(), reference(gradient, c.first, -1)), bound);
    }
  }
}

TEST(Rotary, TakesAnyStridesAndLeavesRowsOfTokens) {
  at::Tensor x = rows(2, 3, 20, 16).to(at::kFloat), y = rotate(x, 4, architecture());
  EXPECT_TRUE(y.transpose(1, 2).is_contiguous());
  EXPECT_TRUE(at::equal(y, rotate(x.contiguous(), 4, architecture())));
  EXPECT_TRUE(at::equal(y, rotate(x.transpose(2, 3).contiguous().transpose(2, 3), 4, architecture())));
}

TEST(Rotary, PositionsDoNotDependOnWhereAPassBegins) {
  at::Tensor x = rows(1, 2, 50, 16).to(at::kFloat), whole = rotate(x, 0, architecture());
  EXPECT_TRUE(at::equal(rotate(x.narrow(2, 30, 20), 30, architecture()), whole.narrow(2, 30, 20)));
}

TEST(Rotary, TwoThreadsGiveTheBitsOfOne) {
  at::Tensor x = rows(4, 8, 200, 64).to(at::kFloat);
  at::set_num_threads(1);
  at::Tensor one = rotate(x, 0, architecture());
  at::set_num_threads(2);
  EXPECT_TRUE(at::equal(one, rotate(x, 0, architecture())));
}

}  // namespace
}  // namespace echelon
