// Rotary positions on a GPU against the same layer in float64. Angles are float32 and grow with the position: results
// stay within 5e-5 of it up to position 200; in bfloat16, whose angles are rounded too, within 4e-2.
#include "models/layers/rotary.h"

#include "tests/models/gpu/on_gpu.h"

namespace echelon {
namespace {

using testing::draws;
using testing::expect_near;
using testing::expect_same_bits;
using testing::on_gpu;

struct Case {
  int64_t batch, heads, tokens, width, first;
  bool shifted;
};

Architecture architecture() {
  Architecture a;
  a.rope_theta = 1000;
  a.rope_linear_factor = 2;
  return a;
}

/// Value and gradient; x and dy [B, T, H, d], as projections leave them.
std::pair<at::Tensor, at::Tensor> both_directions(at::Tensor x, const at::Tensor& dy, int64_t first) {
  x.requires_grad_();
  at::Tensor y = rotate(x.transpose(1, 2), first, architecture());
  y.backward(dy.transpose(1, 2));
  return {y.detach(), x.grad()};
}

TEST(GpuRotary, IsTheDefinitionInBothDirections) {
  for (at::ScalarType type : testing::kTypes) {
    double bound = type == at::kFloat ? 5e-5 : 4e-2;
    for (const Case& c : {Case{2, 3, 65, 64, 0, false}, Case{2, 3, 65, 64, 7, true}, Case{1, 2, 1, 64, 130, false},
                          Case{2, 1, 7, 10, 5, false}, Case{1, 4, 100, 2, 100, false}, Case{1, 2, 0, 8, 3, false}}) {
      at::Tensor x = draws({c.batch, c.tokens, c.heads, c.width}, type), dy = draws(x.sizes(), type);
      auto run = [&] { return both_directions(on_gpu(x, type, c.shifted), on_gpu(dy, type, c.shifted), c.first); };
      auto got = run(), again = run(), expected = both_directions(x.clone(), dy, c.first);
      expect_near(got.first, expected.first, 0, bound);
      expect_near(got.second, expected.second, 0, bound);
      expect_same_bits(got.first, again.first);
      expect_same_bits(got.second, again.second);
    }
  }
}

}  // namespace
}  // namespace echelon
