// Collectives with gradients: together, the ranks get the gradients of the same computation on one rank.
#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include "cluster/base/error.h"
#include "comm/autograd.h"
#include "tests/comm/values.h"
#include "tests/comm/worlds.h"

namespace echelon::testing {

namespace {

class Gradients : public OnEveryBackend {};
ECHELON_ON_EVERY_BACKEND(Gradients);

// Rows of the whole matrix: prime, so that no number of ranks divides it; fewer than eight ranks have shards; and none.
constexpr int64_t kRows[] = {11, 5, 16};
constexpr int64_t kColumns = 3;

/// Small values whose sums are exact in bfloat16 too, so that all dtypes can be compared to the bit.
at::Tensor whole(int64_t rows, at::ScalarType dtype, int64_t salt) {
  at::Tensor numbers = at::arange(rows * kColumns, at::kLong).add_(salt).remainder_(3).sub_(1);
  return numbers.view({rows, kColumns}).to(session().world().device(), dtype);
}

at::Tensor padded(const at::Tensor& x, int64_t rows) {
  return at::cat({x, at::zeros({rows - x.size(0), x.size(1)}, x.options())});
}

int64_t rows_per_rank(int64_t rows, const Group& group) { return (rows + group.size() - 1) / group.size(); }

/// This rank's rows, padded.
at::Tensor slice(const at::Tensor& x, const Group& group) {
  int64_t rows = rows_per_rank(x.size(0), group);
  return padded(x, rows * group.size()).narrow(0, group.rank() * rows, rows).contiguous();
}

at::Tensor sum_over_ranks(const Group& group, const std::function<at::Tensor(int)>& of_rank) {
  at::Tensor sum = of_rank(0);
  for (int rank = 1; rank < group.size(); ++rank) sum = sum + of_rank(rank);
  return sum;
}

template <class Test>
void for_all(const Test& test) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (int64_t rows : kRows) {
      SCOPED_TRACE(fmt::format("{} {}", c10::toString(dtype), rows));
      test(dtype, rows);
    }
  }
}

/// Runs backward of sum(y * upstream) and returns the gradient of `x`.
at::Tensor gradient(const at::Tensor& y, const at::Tensor& x, const at::Tensor& upstream) {
  (y * upstream).sum().backward();
  return x.grad();
}

TEST_P(Gradients, OfGatheredRowsAreSummedOverTheRanksThatUseThem) {
  on_ranks([](const Group& group) {
    for_all([&](at::ScalarType dtype, int64_t rows) {
      at::Tensor x = slice(whole(rows, dtype, 0), group).requires_grad_();
      at::Tensor y = gather_rows(x, rows, group, "x");
      EXPECT_TRUE(same_bits(y, whole(rows, dtype, 0)));
      at::Tensor expected = slice(sum_over_ranks(group, [&](int rank) { return whole(rows, dtype, rank); }), group);
      EXPECT_TRUE(same_bits(gradient(y, x, whole(rows, dtype, group.rank())), expected));
    });
  });
}

TEST_P(Gradients, OfReducedRowsAreGathered) {
  on_ranks([](const Group& group) {
    for_all([&](at::ScalarType dtype, int64_t rows) {
      at::Tensor x = whole(rows, dtype, group.rank()).requires_grad_();
      at::Tensor y = reduce_scatter_rows(x, group, "x");
      at::Tensor sum = sum_over_ranks(group, [&](int rank) { return whole(rows, dtype, rank); });
      EXPECT_TRUE(same_bits(y, slice(sum, group)));
      EXPECT_TRUE(same_bits(gradient(y, x, slice(whole(rows, dtype, 5), group)), whole(rows, dtype, 5)));
    });
  });
}

TEST_P(Gradients, OfScatteredRowsAreGathered) {
  on_ranks([](const Group& group) {
    for_all([&](at::ScalarType dtype, int64_t rows) {
      at::Tensor x = whole(rows, dtype, 0).requires_grad_();
      at::Tensor y = scatter_rows(x, group, "x");
      EXPECT_TRUE(same_bits(y, slice(whole(rows, dtype, 0), group)));
      EXPECT_TRUE(same_bits(gradient(y, x, slice(whole(rows, dtype, 5), group)), whole(rows, dtype, 5)));
    });
  });
}

TEST_P(Gradients, OfReplicatedRowsAreThisRanksSlice) {
  on_ranks([](const Group& group) {
    for_all([&](at::ScalarType dtype, int64_t rows) {
      at::Tensor x = slice(whole(rows, dtype, 0), group).requires_grad_();
      at::Tensor y = gather_rows_replicated(x, rows, group, "x");
      EXPECT_TRUE(same_bits(y, whole(rows, dtype, 0)));
      EXPECT_TRUE(same_bits(gradient(y, x, whole(rows, dtype, 5)), slice(whole(rows, dtype, 5), group)));
    });
  });
}

TEST_P(Gradients, OfSamplesSeenByAllRanksAreSummed) {
  on_ranks([](const Group& group) {
    at::Tensor x = whole(4, at::kDouble, group.rank()).requires_grad_();
    at::Tensor y = gather_with_gradient(x, group, "x");
    ASSERT_EQ(y.size(0), 4 * group.size());
    // A loss that looks at all pairs of samples; every rank computes it from its own samples against all.
    at::Tensor loss = (x.matmul(y.t())).pow(2).sum();
    loss.backward();
    std::vector<at::Tensor> all;
    for (int rank = 0; rank < group.size(); ++rank) all.push_back(whole(4, at::kDouble, rank));
    at::Tensor together = at::cat(all).requires_grad_();
    (together.matmul(together.t())).pow(2).sum().backward();
    EXPECT_TRUE(same_bits(x.grad(), together.grad().narrow(0, 4 * group.rank(), 4)));
  });
}

// A chain as in a tensor-parallel block with sequence parallel: rows are gathered, multiplied by this rank's columns,
// and the partial products are reduced back to rows. Finite differences of the one-rank function judge the gradient.
TEST_P(Gradients, OfAChainAgreeWithFiniteDifferences) {
  on_ranks([](const Group& group) {
    constexpr int64_t rows = 5, inner = 4;
    at::Tensor x = values(0, rows * kColumns, at::kDouble).to(group.device()).div_(4e4).view({rows, kColumns});
    std::vector<at::Tensor> up, down;
    for (int rank = 0; rank < group.size(); ++rank) {
      up.push_back(values(rank, kColumns * inner, at::kDouble, 1).to(group.device()).div_(4e4).view({kColumns, inner}));
      at::Tensor of_down = values(rank, kColumns * inner, at::kDouble, 2).to(group.device());
      down.push_back(of_down.div_(4e4).view({inner, kColumns}));
    }
    auto loss_of = [&](const at::Tensor& input) {
      at::Tensor y = at::zeros_like(input);
      for (size_t rank = 0; rank < up.size(); ++rank) y = y + input.matmul(up[rank]).tanh().matmul(down[rank]);
      return y.pow(2).sum();
    };
    at::Tensor shard = slice(x, group).requires_grad_();
    auto mine = static_cast<size_t>(group.rank());
    at::Tensor partial = gather_rows(shard, rows, group, "in").matmul(up[mine]).tanh().matmul(down[mine]);
    reduce_scatter_rows(partial, group, "out").pow(2).sum().backward();
    at::Tensor got = zeros(group, {rows_per_rank(rows, group) * group.size(), kColumns}, at::kDouble);
    group.all_gather(shard.grad(), got, {.name = "gradient"}).wait();
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < kColumns; ++column) {
        constexpr double step = 1e-6;
        at::Tensor above = x.clone(), below = x.clone();
        above[row][column] += step;
        below[row][column] -= step;
        double slope = ((loss_of(above) - loss_of(below)) / (2 * step)).item<double>();
        // Central differences of a smooth function near 1: error of order step^2 and 1e-16 / step.
        EXPECT_NEAR(got[row][column].item<double>(), slope, 1e-7);
      }
    }
  });
}

TEST_P(Gradients, NeedNoCollectiveInAGroupOfOne) {
  on_ranks([](const Group& group) {
    Group alone = group.split(group.rank(), 0, "alone");
    at::Tensor x = whole(5, at::kFloat, 0).requires_grad_();
    EXPECT_TRUE(gather_rows(x, 5, alone, "x").is_same(x));
    EXPECT_TRUE(reduce_scatter_rows(x, alone, "x").is_same(x));
    EXPECT_TRUE(scatter_rows(x, alone, "x").is_same(x));
    EXPECT_TRUE(gather_rows_replicated(x, 5, alone, "x").is_same(x));
    EXPECT_TRUE(gather_with_gradient(x, alone, "x").is_same(x));
  });
}

TEST_P(Gradients, CountForwardAndBackwardAsActivations) {
  on_ranks([](const Group& group) {
    int64_t rows = 4 * group.size();
    at::Tensor x = zeros(group, {4, kColumns}).add_(1).requires_grad_();
    int64_t before = group.bytes_sent(Purpose::activations);
    gather_rows(x, rows, group, "x").sum().backward();
    EXPECT_EQ(group.bytes_sent(Purpose::activations) - before, 2 * (group.size() - 1) * 4 * kColumns * 4);
  });
}

TEST_P(Gradients, RefuseAShardOfTheWrongRows) {
  on_ranks([](const Group& group) {
    EXPECT_THROW(gather_rows(zeros(group, {9, 2}), 5, group, "x"), Error);
    EXPECT_THROW(gather_rows_replicated(zeros(group, {9, 2}), 5, group, "x"), Error);
    EXPECT_THROW(scatter_rows(zeros(group, {}), group, "x"), Error);
  });
}

}  // namespace

}  // namespace echelon::testing
