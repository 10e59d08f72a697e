#include "models/layers/discarded.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/generated/variable_factories.h>

namespace echelon {
namespace {

at::Tensor input() { return at::arange(1, 7, at::kFloat).view({2, 3}).requires_grad_(true); }

/// sum (2 x + 1)^3, whose cube has saved 2 x + 1.
at::Tensor cubes(const at::Tensor& x, Discarded* discarded, at::Tensor* between = nullptr) {
  at::Tensor line = 2 * x + 1;
  if (between) *between = line;
  if (discarded) discarded->discard(line, [x = x.detach()] { return 2 * x + 1; });
  at::Tensor sum = line.pow(3).sum();
  return discarded ? std::move(*discarded).until_backward(sum) : sum;
}

TEST(Discarded, BackwardFindsTheSameBits) {
  at::Tensor kept = input(), again = input();
  cubes(kept, nullptr).backward();
  Discarded discarded;
  cubes(again, &discarded).backward();
  EXPECT_TRUE(at::equal(kept.grad(), again.grad()));
}

TEST(Discarded, TheMemoryIsGivenBackUntilBackward) {
  Discarded discarded;
  at::Tensor x = input(), line;
  at::Tensor sum = cubes(x, &discarded, &line);
  EXPECT_EQ(line.storage().data(), nullptr);
  sum.backward();
  ASSERT_NE(line.storage().data(), nullptr);
  EXPECT_TRUE(at::equal(line, 2 * x + 1));
}

TEST(Discarded, WhatIsComputedOfWhatWasDiscardedComesLater) {
  at::Tensor x = input();
  Discarded discarded;
  at::Tensor first = 2 * x, second = first + 1;
  discarded.discard(first, [x = x.detach()] { return 2 * x; });
  discarded.discard(second, [first = first.detach()] { return first + 1; });
  std::move(discarded).until_backward((first * first).sum() + second.pow(3).sum()).backward();
  EXPECT_TRUE(at::allclose(x.grad(), 8 * x + 6 * (2 * x + 1).square()));
}

TEST(Discarded, WithoutGradientsTheOutputIsLeftAsItIs) {
  at::NoGradGuard no_gradients;
  Discarded discarded;
  at::Tensor sum = cubes(input().detach(), &discarded);
  EXPECT_FALSE(sum.requires_grad());
  EXPECT_FLOAT_EQ(sum.item<float>(), 27 + 125 + 343 + 729 + 1331 + 2197);
}

TEST(Discarded, AViewIsRefused) {
  Discarded discarded;
  EXPECT_THROW(discarded.discard(input().slice(1, 0, 2), [] { return at::Tensor(); }), std::exception);
}

}  // namespace
}  // namespace echelon
