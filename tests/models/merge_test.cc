// Folding in and taking out: whatever rounding took away comes back, bit by bit.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/base/error.h"
#include "models/interchange/residue_codec.h"
#include "models/kernels/ordered_product.h"
#include "models/merge_rule.h"
#include "sharding/layout.h"
#include "sharding/seed.h"

namespace echelon {
namespace {

constexpr int64_t kRows = 13, kColumns = 29, kRank = 3;

at::Tensor draw(const Seed& seed, std::vector<int64_t> sizes, double deviation) {
  return (keyed_normal(seed, sizes, Slice::whole(sizes)) * deviation).to(at::kFloat);
}

/// A matrix with what is awkward: zeros of both signs, subnormal and large numbers.
at::Tensor awkward(const Seed& seed, at::ScalarType dtype) {
  at::Tensor w = draw(seed, {kRows, kColumns}, 0.05);
  w[0][0] = 0.0f;
  w[0][1] = -0.0f;
  w[0][2] = 1e-41f;
  w[0][3] = 1e4f;
  return w.to(dtype);
}

MergeRule low_rank(const Seed& seed, double deviation) {
  at::Tensor a = draw(seed.with("a"), {kRank, kColumns}, deviation),
             b = draw(seed.with("b"), {kRows, kRank}, deviation);
  return {.parameter = "w",
          .shift = [=](int64_t row, int64_t rows) { return ordered_product(b.narrow(0, row, rows), a) * 2.0; }};
}

/// Merges and restores, the residue through its packed form; the merged tensor.
at::Tensor expect_restored(const MergeRule& rule, const at::Tensor& exact) {
  at::Tensor scale;
  at::Tensor merged = rule.merged(exact, 0, &scale).to(exact.scalar_type());
  at::Tensor rounded = rule.restored(merged, 0, scale).to(exact.scalar_type());
  std::vector<std::byte> packed = pack_residue(residue_of(exact, rounded).reshape({-1}));
  at::Tensor residue = unpack_residue(packed.data(), packed.size(), exact.numel(), "test").view(exact.sizes());
  at::Tensor back = apply_residue(rounded, residue);
  at::ScalarType bits = exact.element_size() == 4 ? at::kInt : at::kShort;
  EXPECT_TRUE(at::equal(back.view(bits), exact.view(bits)));
  return merged;
}

TEST(Merge, AThousandTimesGivesTheBaseBackBitByBit) {
  Seed seed(3);
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    at::Tensor exact = awkward(seed, dtype);
    for (int64_t i = 0; i < 1000; ++i) expect_restored(low_rank(seed.with(i), i % 2 ? 0.05 : 2), exact);
  }
}

TEST(Merge, OfFactorsGivesTheBaseBackEvenBehindAZero) {
  Seed seed(4);
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::Tensor factors = draw(seed.with("l"), {kRows, 1}, 1).to(at::kDouble);
    factors[5] = 0;
    expect_restored({.parameter = "w", .scale = factors}, awkward(seed, dtype));
    MergeRule dora = low_rank(seed, 0.3);
    dora.row_lengths = factors.abs();
    at::Tensor merged = expect_restored(dora, awkward(seed, dtype));
    EXPECT_EQ(merged[5].abs().max().item<double>(), 0);
  }
}

TEST(Merge, OfRowsIsThatOfTheWhole) {
  Seed seed(5);
  MergeRule rule = low_rank(seed, 0.3);
  at::Tensor exact = awkward(seed, at::kFloat), unused;
  at::Tensor whole = rule.merged(exact, 0, &unused);
  EXPECT_TRUE(at::equal(rule.merged(exact.narrow(0, 4, 3), 4, &unused), whole.narrow(0, 4, 3)));
}

TEST(OrderedProduct, IsTheProduct) {
  Seed seed(6);
  at::Tensor b = draw(seed.with("b"), {kRows, kRank}, 1), a = draw(seed.with("a"), {kRank, kColumns}, 1);
  EXPECT_TRUE(at::allclose(ordered_product(b, a), at::mm(b.to(at::kDouble), a.to(at::kDouble)), 1e-14, 1e-14));
  EXPECT_TRUE(
      at::allclose(ordered_row_lengths(a), at::linalg_vector_norm(a.to(at::kDouble), 2, {1}, true), 1e-14, 1e-14));
}

TEST(ResidueCodec, RefusesDamage) {
  std::vector<std::byte> packed = pack_residue(at::arange(-100, 100, at::kInt) * 12345);
  EXPECT_TRUE(
      at::equal(unpack_residue(packed.data(), packed.size(), 200, "test"), at::arange(-100, 100, at::kInt) * 12345));
  EXPECT_THROW(unpack_residue(packed.data(), packed.size(), 199, "test"), Error);
  EXPECT_THROW(unpack_residue(packed.data(), packed.size(), int64_t{1} << 40, "test"), Error);
  EXPECT_THROW(unpack_residue(packed.data(), packed.size() / 2, 200, "test"), Error);
  packed[packed.size() / 2] ^= std::byte{0x40};
  EXPECT_ANY_THROW({
    at::Tensor values = unpack_residue(packed.data(), packed.size(), 200, "test");
    if (!at::equal(values, at::arange(-100, 100, at::kInt) * 12345)) throw Error::input("test", "other values");
  });
}

}  // namespace
}  // namespace echelon
