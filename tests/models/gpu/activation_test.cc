// Activations on a GPU against float64: errors of 1e-5, and one rounding to the stored type.
#include "models/layers/activation.h"

#include "tests/models/gpu/on_gpu.h"

namespace echelon {
namespace {

using testing::draws;
using testing::expect_near;
using testing::expect_same_bits;
using testing::on_gpu;

/// The value and the gradients of x and up.
using Results = std::vector<at::Tensor>;

Results both_directions(at::Tensor x, at::Tensor up, const at::Tensor& dy, Activation activation, bool gated) {
  x.requires_grad_();
  up.requires_grad_();
  at::Tensor y = gated ? activate_gated(x, up, activation) : activate(x, activation);
  y.backward(dy);
  return gated ? Results{y.detach(), x.grad(), up.grad()} : Results{y.detach(), x.grad()};
}

void check(int64_t count, at::ScalarType type, Activation activation, bool gated, bool shifted) {
  SCOPED_TRACE(::testing::Message() << count << ", " << static_cast<int>(activation) << ", gated " << gated);
  at::Tensor x = draws({count}, type, 3), up = draws({count}, type), dy = draws({count}, type);
  auto there = [&](const at::Tensor& t) { return on_gpu(t, type, shifted); };
  auto run = [&] { return both_directions(there(x), there(up), there(dy), activation, gated); };
  Results got = run(), again = run(), expected = both_directions(x.clone(), up.clone(), dy, activation, gated);
  for (size_t i = 0; i < expected.size(); ++i) {
    expect_near(got[i], expected[i].detach(), 1e-5, 1e-5);
    expect_same_bits(got[i], again[i]);
  }
}

TEST(GpuActivation, IsTheFormulaInBothDirections) {
  for (Activation activation : {Activation::gelu, Activation::gelu_tanh, Activation::silu, Activation::relu}) {
    for (at::ScalarType type : testing::kTypes) {
      for (int64_t count : {0, 1, 7, 1003, 3000001}) {
        check(count, type, activation, count % 2 == 0, false);
        check(count, type, activation, count % 2 == 1, true);
        check(count, type, activation, true, false);
      }
    }
  }
}

}  // namespace
}  // namespace echelon
