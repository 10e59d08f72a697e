// Attention in bfloat16 on a GPU against whole matrices in float64 on the processor. The framework's kernel rounds
// weights and their gradients to bfloat16 on the way: errors of 2 roundings of the result, and of 1 % of the largest
// element plus 1.
#include "models/layers/attend.h"

#include "tests/models/gpu/on_gpu.h"

namespace echelon {
namespace {

using testing::draws;
using testing::expect_near;
using testing::expect_same_bits;
using testing::on_gpu;

struct Case {
  int64_t batch, heads, kv_heads, queries, keys, width;
  bool causal;
};

/// The result and the gradients of q, k and v.
std::vector<at::Tensor> both_directions(std::vector<at::Tensor> x, const at::Tensor& dy, bool causal) {
  for (int i = 0; i < 3; ++i) x[i].requires_grad_();
  at::Tensor y = attend(x[0], x[1], x[2], {.causal = causal, .scale = 0.125});
  y.backward(dy);
  return {y.detach(), x[0].grad(), x[1].grad(), x[2].grad()};
}

TEST(GpuAttention, IsTheDefinitionInBothDirectionsAndHasTheSameBitsTwice) {
  for (const Case& c : {Case{2, 4, 4, 130, 130, 64, true}, Case{2, 4, 2, 130, 130, 64, true},
                        Case{1, 4, 1, 33, 70, 128, false}, Case{3, 2, 2, 1, 1, 8, true}}) {
    at::Tensor q = draws({c.batch, c.heads, c.queries, c.width}, at::kBFloat16);
    at::Tensor k = draws({c.batch, c.kv_heads, c.keys, c.width}, at::kBFloat16), v = draws(k.sizes(), at::kBFloat16);
    at::Tensor dy = draws(q.sizes(), at::kBFloat16);
    ASSERT_TRUE(flash_takes(on_gpu(q, at::kBFloat16), on_gpu(k, at::kBFloat16), {.causal = c.causal}));
    auto there = [](const at::Tensor& x) { return on_gpu(x, at::kBFloat16); };
    auto run = [&] { return both_directions({there(q), there(k), there(v)}, there(dy), c.causal); };
    auto got = run(), again = run(), expected = both_directions({q.clone(), k.clone(), v.clone()}, dy, c.causal);
    for (size_t i = 0; i < got.size(); ++i) {
      expect_near(got[i], expected[i], 0x1p-8, 0.01 * (1 + expected[i].abs().max().item<double>()));
      expect_same_bits(got[i], again[i]);
    }
  }
}

}  // namespace
}  // namespace echelon
