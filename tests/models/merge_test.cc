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
  return {.parameter = "w", .shift = [=](const Slice& part) {
            at::Tensor left = b.narrow(0, part.offsets[0], part.sizes[0]);
            return ordered_product(left, a.narrow(1, part.offsets[1], part.sizes[1])) * 2.0;
          }};
}

/// Folds in and takes out, the residue through its packed form; the merged tensor.
at::Tensor expect_restored(const MergeRule& rule, const at::Tensor& exact) {
  Slice all = Slice::whole(exact.sizes().vec());
  at::Tensor scale, back = exact.clone();
  ResiduePacker packer;
  EXPECT_TRUE(fold_in(rule, back, all, &scale, &packer));
  at::Tensor merged = back.clone();
  std::vector<std::byte> packed = packer.finish();
  ResidueUnpacker residue(packed.data(), packed.size(), "test");
  take_out(rule, back, all, scale, residue.next(exact.numel()));
  residue.finish();
  at::ScalarType bits = exact.element_size() == 8 ? at::kLong : exact.element_size() == 4 ? at::kInt : at::kShort;
  EXPECT_TRUE(at::equal(back.view(bits), exact.view(bits)));
  return merged;
}

TEST(Merge, AThousandTimesGivesTheBaseBackBitByBit) {
  Seed seed(3);
  for (at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
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

TEST(Merge, OfAPartIsThatOfTheWhole) {
  Seed seed(5);
  MergeRule rule = low_rank(seed, 0.3);
  rule.scale = draw(seed.with("l"), {1, kColumns}, 1).to(at::kDouble);
  at::Tensor exact = awkward(seed, at::kFloat), unused;
  at::Tensor whole = rule.merged(exact, Slice::whole({kRows, kColumns}), &unused);
  at::Tensor part = exact.narrow(0, 4, 3).narrow(1, 7, 11);
  EXPECT_TRUE(at::equal(rule.merged(part, {{4, 7}, {3, 11}}, &unused), whole.narrow(0, 4, 3).narrow(1, 7, 11)));
}

TEST(Merge, OfAPartOfARowTakesTheLengthOfTheWholeRow) {
  Seed seed(7);
  MergeRule rule = low_rank(seed, 0.3);
  rule.row_lengths = draw(seed.with("m"), {kRows, 1}, 1).to(at::kDouble).abs();
  at::Tensor exact = awkward(seed, at::kFloat), used;
  at::Tensor whole = rule.merged(exact, Slice::whole({kRows, kColumns}), &used);
  at::Tensor squares = rule.before_lengths(exact, Slice::whole({kRows, kColumns})).square();
  EXPECT_TRUE(at::equal(rule.scale_for(ordered_row_lengths_of_squares(squares), 0), used));
  at::Tensor of_row = used.narrow(0, 4, 1), part = exact.narrow(0, 4, 1).narrow(1, 7, 11);
  EXPECT_TRUE(at::equal(rule.merged(part, {{4, 7}, {1, 11}}, &of_row), whole.narrow(0, 4, 1).narrow(1, 7, 11)));
}

TEST(OrderedProduct, IsTheProduct) {
  Seed seed(6);
  at::Tensor b = draw(seed.with("b"), {kRows, kRank}, 1), a = draw(seed.with("a"), {kRank, kColumns}, 1);
  EXPECT_TRUE(at::allclose(ordered_product(b, a), at::mm(b.to(at::kDouble), a.to(at::kDouble)), 1e-14, 1e-14));
  EXPECT_TRUE(
      at::allclose(ordered_row_lengths(a), at::linalg_vector_norm(a.to(at::kDouble), 2, {1}, true), 1e-14, 1e-14));
}

std::vector<std::byte> packed(const at::Tensor& values) {
  ResiduePacker packer;
  packer.add(values);
  return packer.finish();
}

at::Tensor unpacked(const std::vector<std::byte>& bytes, int64_t count) {
  ResidueUnpacker unpacker(bytes.data(), bytes.size(), "test");
  at::Tensor values = unpacker.next(count);
  unpacker.finish();
  return values;
}

TEST(ResidueCodec, GivesBackInPiecesOfAnySize) {
  at::Tensor values = at::arange(-100'000, 100'000, at::kLong) * 123'456'789'012;
  values[7] = std::numeric_limits<int64_t>::min();
  std::vector<std::byte> bytes = packed(values);
  EXPECT_TRUE(at::equal(unpacked(bytes, values.numel()), values));
  ResidueUnpacker pieces(bytes.data(), bytes.size(), "test");
  EXPECT_TRUE(at::equal(pieces.next(77'777), values.narrow(0, 0, 77'777)));
  EXPECT_TRUE(at::equal(pieces.next(122'223), values.narrow(0, 77'777, 122'223)));
  pieces.finish();
  EXPECT_LT(packed(at::zeros({1'000'000}, at::kLong)).size(), 200u);
}

TEST(ResidueCodec, RefusesDamage) {
  at::Tensor values = at::arange(-100, 100, at::kLong) * 12345;
  std::vector<std::byte> bytes = packed(values);
  EXPECT_TRUE(at::equal(unpacked(bytes, 200), values));
  EXPECT_THROW(unpacked(bytes, 199), Error);
  EXPECT_THROW(unpacked(bytes, 201), Error);
  EXPECT_THROW(unpacked({bytes.begin(), bytes.begin() + bytes.size() / 2}, 200), Error);
  EXPECT_THROW(unpacked({}, 1), Error);
  std::vector<std::byte> longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_THROW(unpacked(longer, 200), Error);
  bytes[bytes.size() / 2] ^= std::byte{0x40};
  EXPECT_ANY_THROW({
    if (!at::equal(unpacked(bytes, 200), values)) throw Error::input("test", "other values");
  });
}

}  // namespace
}  // namespace echelon
