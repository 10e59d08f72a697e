// Blocked attention against plain sums in float64. Errors are measured against the largest value of each tensor:
// float32 stays below 3e-6, bfloat16 below 1.5e-2, which is four roundings of weights, of gradients of scores and of
// results.
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "models/kernels/dropout.h"
#include "models/layers/attend.h"
#include "tests/test_session.h"

namespace echelon {
namespace {

struct Case {
  int64_t batch, heads, kv_heads, queries, keys, width;
  bool causal = false;
  int64_t past = 0;
  bool padded = false;
  double dropout = 0;
};

struct Inputs {
  at::Tensor q, k, v, gradient;  // [B, H, T, d]
  AttentionOptions options;
};

struct Results {
  at::Tensor out, q, k, v;  // gradients but for the first
};

at::Tensor rows(int64_t batch, int64_t heads, int64_t tokens, int64_t width) {
  return at::randn({batch, tokens, heads, width}, at::kDouble).to(at::kBFloat16).to(at::kDouble).transpose(1, 2);
}

at::Tensor random_keys(const Case& c) {
  return at::randint(std::numeric_limits<int64_t>::max(), {c.batch, c.heads, c.queries}, at::kLong);
}

at::Device device() { return testing::session().world().device(); }
bool on_gpu() { return device().is_cuda(); }

/// Where the kernels are: dropout's keys stay here.
at::Tensor there(const at::Tensor& x, at::ScalarType type) { return x.to(device(), type); }
AttentionOptions there(AttentionOptions options) {
  if (options.key_mask.defined()) options.key_mask = options.key_mask.to(device());
  return options;
}

Inputs inputs(const Case& c) {
  at::manual_seed(1);
  Inputs in{rows(c.batch, c.heads, c.queries, c.width),
            rows(c.batch, c.kv_heads, c.keys, c.width),
            rows(c.batch, c.kv_heads, c.keys, c.width),
            rows(c.batch, c.heads, c.queries, c.width),
            {}};
  in.options = {.causal = c.causal, .scale = 1 / std::sqrt(c.width), .dropout = c.dropout, .past = c.past};
  if (c.padded) {
    in.options.key_mask = at::randint(3, {c.batch, c.keys}, at::kLong).ne(0).to(at::kLong);
    if (!on_gpu()) in.options.key_mask[0].zero_();  // a sample that may look at nothing
  }
  if (c.dropout > 0) in.options.row_keys = random_keys(c);
  return in;
}

Results attended(const Inputs& in, at::ScalarType type) {
  at::AutoGradMode on(true);
  auto leaf = [&](const at::Tensor& x) { return there(x, type).detach().requires_grad_(); };
  at::Tensor q = leaf(in.q), k = leaf(in.k), v = leaf(in.v);
  at::Tensor out = attend(q, k, v, there(in.options));
  out.backward(there(in.gradient, type));
  return {out.detach().cpu(), q.grad().cpu(), k.grad().cpu(), v.grad().cpu()};
}

/// One query's weights and what of them dropout leaves, [S] each.
struct Row {
  at::Tensor weights, kept;
};

Row row(const Inputs& in, int64_t b, int64_t h, int64_t t, const at::Tensor& q, const at::Tensor& k) {
  int64_t keys = k.size(0);
  at::Tensor scores = at::mv(k, q) * in.options.scale, permitted = at::ones({keys}, at::kBool);
  if (in.options.causal && in.q.size(2) > 1) permitted = at::arange(keys).le(in.options.past + t);
  if (in.options.key_mask.defined()) permitted = permitted.logical_and(in.options.key_mask[b].ne(0));
  Row row{.kept = at::ones({keys}, at::kDouble)};
  bool any = permitted.any().item<bool>();
  row.weights = any ? at::softmax(scores.masked_fill(permitted.logical_not(), -INFINITY), 0)
                    : at::full({keys}, 1.0 / static_cast<double>(keys), at::kDouble);
  if (in.options.dropout > 0) {
    at::Tensor key = in.options.row_keys[b][h][t].view({1});
    row.kept = keyed_dropout(row.kept.unsqueeze(0), key, in.options.dropout)[0];
  }
  return row;
}

/// By the definition, a query at a time.
Results reference(const Inputs& in) {
  Results r{at::zeros_like(in.q), at::zeros_like(in.q), at::zeros_like(in.k), at::zeros_like(in.v)};
  int64_t group = in.q.size(1) / in.k.size(1);
  for (int64_t b = 0; b < in.q.size(0); ++b) {
    for (int64_t h = 0; h < in.q.size(1); ++h) {
      at::Tensor k = in.k[b][h / group], v = in.v[b][h / group];
      for (int64_t t = 0; t < in.q.size(2); ++t) {
        at::Tensor q = in.q[b][h][t], gradient = in.gradient[b][h][t];
        auto [weights, kept] = row(in, b, h, t, q, k);
        r.out[b][h][t] = at::mv(v.t(), weights * kept);
        r.v[b][h / group].add_(at::outer(weights * kept, gradient));
        at::Tensor of_weights = at::mv(v, gradient) * kept;
        at::Tensor of_scores = weights * (of_weights - at::dot(weights, of_weights)) * in.options.scale;
        r.q[b][h][t] = at::mv(k.t(), of_scores);
        r.k[b][h / group].add_(at::outer(of_scores, q));
      }
    }
  }
  return r;
}

double error(const at::Tensor& x, const at::Tensor& wanted) {
  if (wanted.numel() == 0) return 0;
  return ((x.to(at::kDouble) - wanted).abs().max() / (wanted.abs().max() + 1e-2)).item<double>();
}

double worst_error(const Results& x, const Results& wanted) {
  return std::max({error(x.out, wanted.out), error(x.q, wanted.q), error(x.k, wanted.k), error(x.v, wanted.v)});
}

const Case kCases[] = {
    {2, 2, 2, 64, 64, 64, true},
    {2, 3, 1, 129, 129, 7, true, 0, true, 0.1},
    {1, 4, 2, 70, 103, 64, true, 33},
    {2, 4, 2, 33, 65, 20, true, 32, false, 0.2},
    {2, 2, 1, 100, 131, 33, false, 0, true},
    {2, 2, 2, 63, 200, 80, false, 0, true, 0.3},
    {1, 6, 2, 1, 77, 64, true, 76},
    {3, 4, 2, 1, 150, 20, true, 149, true, 0.2},
    {1, 2, 2, 65, 65, 24, true},
    {3, 2, 2, 1, 1, 1, true},
    {1, 1, 1, 5, 3, 130},
    {1, 2, 2, 0, 5, 8},
    {2, 2, 2, 4, 0, 8},
    {0, 2, 2, 4, 4, 8, true},
};

class AttentionCases : public ::testing::TestWithParam<Case> {};

TEST_P(AttentionCases, InFloat32IsTheDefinition) {
  Inputs in = inputs(GetParam());
  EXPECT_LT(worst_error(attended(in, at::kFloat), reference(in)), 3e-6);
}

TEST_P(AttentionCases, InBfloat16IsTheDefinition) {
  Inputs in = inputs(GetParam());
  EXPECT_LT(worst_error(attended(in, at::kBFloat16), reference(in)), 1.5e-2);
}

TEST_P(AttentionCases, ByWholeMatricesIsTheDefinition) {
  if (GetParam().batch * GetParam().queries * GetParam().keys == 0) return;
  Inputs in = inputs(GetParam());
  EXPECT_LT(worst_error(attended(in, at::kDouble), reference(in)), 1e-12);
}

TEST_P(AttentionCases, TwoThreadsGiveTheBitsOfOne) {
  Inputs in = inputs(GetParam());
  for (at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    at::set_num_threads(1);
    Results one = attended(in, type);
    at::set_num_threads(2);
    Results two = attended(in, type);
    EXPECT_TRUE(at::equal(one.out, two.out) && at::equal(one.q, two.q) && at::equal(one.k, two.k) &&
                at::equal(one.v, two.v));
  }
}

INSTANTIATE_TEST_SUITE_P(Attention, AttentionCases, ::testing::ValuesIn(kCases), [](const auto& info) {
  const Case& c = info.param;
  return fmt::format("B{}H{}K{}T{}S{}d{}{}{}{}", c.batch, c.heads, c.kv_heads, c.queries, c.keys, c.width,
                     c.causal ? "Causal" : "", c.padded ? "Padded" : "", c.dropout > 0 ? "Dropout" : "");
});

TEST(Attention, DropsWhatKeyedDropoutDrops) {
  Case c{1, 2, 2, 70, 96, 96, false, 0, false, 0.4};
  Inputs in = inputs(c);
  in.v = at::eye(c.keys, at::kDouble).expand({1, 2, c.keys, c.keys});  // the result is the weights
  at::Tensor weights = attended(in, at::kFloat).out;
  at::Tensor kept = keyed_dropout(at::ones({140, c.keys}), in.options.row_keys.flatten(), c.dropout).ne(0);
  EXPECT_TRUE(at::equal(weights.ne(0).reshape({140, c.keys}), kept));
}

TEST(Attention, TakesAnyStridesAndLeavesRowsOfTokens) {
  if (on_gpu()) return;  // the library's kernels lay out what they like
  Inputs in = inputs({2, 4, 2, 40, 50, 16});
  auto cached = [](const at::Tensor& x) { return at::cat({x, x}, 2).to(at::kFloat).narrow(2, 0, x.size(2)); };
  at::Tensor q = in.q.to(at::kFloat), k = in.k.to(at::kFloat), v = in.v.to(at::kFloat);
  at::Tensor out = attend(q, k, v, in.options);
  EXPECT_TRUE(out.transpose(1, 2).is_contiguous());
  EXPECT_TRUE(at::equal(out, attend(q.contiguous(), cached(k), cached(v), in.options)));
  EXPECT_TRUE(at::equal(out, attend(q, k.transpose(2, 3).contiguous().transpose(2, 3), v, in.options)));
  Results results = attended(in, at::kFloat);
  for (const at::Tensor& gradient : {results.q, results.k, results.v})
    EXPECT_TRUE(gradient.transpose(1, 2).is_contiguous());
}

TEST(Attention, WhatIsNotANumberSpreadsToTheQueriesThatSeeIt) {
  Inputs in = inputs({1, 1, 1, 100, 100, 16, true});
  in.k[0][0][70][3] = NAN;
  at::Tensor broken = attended(in, at::kFloat).out.isnan().any(-1)[0][0];
  EXPECT_TRUE(at::equal(broken, at::arange(100).ge(70)));
}

TEST(Attention, ScoresFarApartDoNotOverflow) {
  Inputs in = inputs({1, 1, 1, 40, 130, 8});
  in.q *= 1e4;
  EXPECT_LT(error(attended(in, at::kFloat).out, reference(in).out), 3e-3);
}

}  // namespace
}  // namespace echelon
