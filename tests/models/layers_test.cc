// Layers whose kernels are our own, against stock operators in float64.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "models/layers/activation.h"
#include "models/layers/cross_entropy.h"
#include "models/layers/norm.h"
#include "tests/test_session.h"

namespace echelon {
namespace {

at::Tensor draw(at::IntArrayRef sizes, int64_t seed) {
  return at::randn(sizes, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions(at::kDouble));
}

/// Errors relative to the largest element.
double error(const at::Tensor& got, const at::Tensor& expected) {
  if (expected.numel() == 0) return got.numel();
  return ((got.to(at::kDouble) - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item<double>();
}

double tolerance(at::ScalarType dtype) { return dtype == at::kDouble ? 1e-12 : dtype == at::kFloat ? 1e-5 : 2e-2; }

/// One Unit with a matrix and a bias, in `dtype` with masters as a run would have them.
struct Fixture {
  explicit Fixture(at::ScalarType dtype)
      : mesh(testing::session().world(), {}),
        zero(mesh, {.stage = 3, .values = dtype, .master = dtype == at::kDouble ? at::kDouble : at::kFloat}),
        unit("unit", zero) {}

  void fill(const Parameter& parameter, const at::Tensor& values) {
    const Segment* segment = nullptr;
    for (const Segment& each : unit.trained().segments()) {
      if (each.parameter == &parameter) segment = &each;
    }
    unit.trained().master().narrow(0, segment->offset, segment->length).copy_(values.reshape({-1}));
    unit.trained().publish();
  }
  at::Tensor gradient(const Parameter& parameter) {
    for (const Segment& each : unit.trained().segments()) {
      if (each.parameter == &parameter)
        return unit.trained().gradient().narrow(0, each.offset, each.length).view(parameter.local().sizes);
    }
    return {};
  }

  Mesh mesh;
  Zero zero;
  Unit unit;
};

/// The head over a vocabulary, and the same from all logits in float64.
class Head : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void run(int64_t rows, int64_t width, int64_t vocabulary, bool with_bias) {
    at::ScalarType dtype = GetParam();
    Fixture f(dtype);
    Parameter& weight = f.unit.add("weight", Layout::replicated({vocabulary, width}), {});
    Parameter* bias = with_bias ? &f.unit.add("bias", Layout::replicated({vocabulary}), {}) : nullptr;
    f.unit.allocate();
    at::Tensor w = draw({vocabulary, width}, 1).to(dtype).to(at::kDouble).requires_grad_(true);
    at::Tensor b = draw({vocabulary}, 2).to(dtype).to(at::kDouble).requires_grad_(true);
    at::Tensor x = draw({rows, width}, 3).to(dtype).to(at::kDouble).requires_grad_(true);
    f.fill(weight, w.detach());
    if (bias) f.fill(*bias, b.detach());
    at::Tensor targets = at::arange(rows, at::kLong).mul(7).remainder(vocabulary);

    at::Tensor input = x.detach().to(dtype).requires_grad_(true);
    at::Tensor loss = head_cross_entropy_sum(f.unit.enter(input), weight, bias, targets, 0, f.mesh.tp());
    EXPECT_EQ(loss.scalar_type(), dtype == at::kDouble ? at::kDouble : at::kFloat);
    (f.unit.leave(loss) * 0.5).backward();

    at::Tensor logits = with_bias ? at::linear(x, w, b) : at::linear(x, w);
    at::Tensor expected = at::cross_entropy_loss(logits, targets, {}, at::Reduction::Sum);
    (expected * 0.5).backward();
    EXPECT_LT(error(loss.detach(), expected.detach()), tolerance(dtype));
    EXPECT_LT(error(input.grad(), x.grad()), tolerance(dtype));
    EXPECT_LT(error(f.gradient(weight), w.grad()), tolerance(dtype));
    if (bias) {
      EXPECT_LT(error(f.gradient(*bias), b.grad()), tolerance(dtype));
    }
  }
};

TEST_P(Head, OfOneChunkGivesWhatAllLogitsGive) {
  run(5, 7, 11, false);
  run(5, 7, 11, true);
}

TEST_P(Head, OfManyChunksGivesWhatAllLogitsGive) { run(600, 8, 8192, true); }

TEST_P(Head, WithoutRowsHasNoLossAndNoGradient) {
  Fixture f(GetParam());
  Parameter& weight = f.unit.add("weight", Layout::replicated({11, 7}), {});
  f.unit.allocate();
  at::Tensor input = at::zeros({0, 7}, GetParam()).requires_grad_(true);
  at::Tensor loss =
      head_cross_entropy_sum(f.unit.enter(input), weight, nullptr, at::zeros({0}, at::kLong), 0, f.mesh.tp());
  f.unit.leave(loss).backward();
  EXPECT_EQ(loss.item<double>(), 0);
  EXPECT_EQ(f.gradient(weight).abs().max().item<double>(), 0);
}

TEST_P(Head, WithoutAGraphGivesTheLossOnly) {
  Fixture f(GetParam());
  Parameter& weight = f.unit.add("weight", Layout::replicated({11, 7}), {});
  f.unit.allocate();
  f.fill(weight, at::zeros({11, 7}));
  at::NoGradGuard no_gradients;
  at::Tensor loss = head_cross_entropy_sum(f.unit.enter(at::ones({3, 7}, GetParam())), weight, nullptr,
                                           at::zeros({3}, at::kLong), 0, f.mesh.tp());
  EXPECT_NEAR(f.unit.leave(loss).item<double>(), 3 * std::log(11), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Head, ::testing::Values(at::kDouble, at::kFloat, at::kBFloat16));

TEST(NormLayer, IsTheStockOperatorForAnyNumberOfRows) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (Norm norm : {Norm::layer, Norm::rms}) {
      for (int64_t rows : {1, 31, 100}) {
        Fixture f(dtype);
        NormLayer layer(f.unit, "norm", {.width = 24, .norm = norm});
        f.unit.allocate();
        const Parameter& weight = *f.unit.parameters()[0];
        at::Tensor w = draw({24}, 1).to(dtype).to(at::kDouble).requires_grad_(true);
        f.fill(weight, w.detach());
        at::Tensor x = draw({rows, 24}, 2).to(dtype).to(at::kDouble).requires_grad_(true),
                   dy = draw({rows, 24}, 3).to(dtype);
        at::Tensor input = x.detach().to(dtype).requires_grad_(true);
        at::Tensor y = layer(f.unit.enter(input));
        f.unit.leave(y).backward(dy);
        at::Tensor rms = x * at::rsqrt(x.square().mean(-1, true) + 1e-5) * w;
        at::Tensor expected =
            norm == Norm::layer ? at::layer_norm(x, {24}, w, at::zeros({24}, at::kDouble), 1e-5) : rms;
        expected.backward(dy.to(at::kDouble));
        EXPECT_LT(error(y.detach(), expected.detach()), tolerance(dtype));
        EXPECT_LT(error(input.grad(), x.grad()), tolerance(dtype));
        EXPECT_LT(error(f.gradient(weight), w.grad()), tolerance(dtype));
      }
    }
  }
}

TEST(NormLayer, RowsBesideTheirNormGetTheGradientsOfBoth) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    Fixture f(dtype);
    NormLayer layer(f.unit, "norm", {.width = 24});
    f.unit.allocate();
    at::Tensor w = draw({24}, 1).to(dtype).to(at::kDouble), factor = draw({5, 24}, 3).to(dtype);
    f.fill(*f.unit.parameters()[0], w);
    at::Tensor x = draw({5, 24}, 2).to(dtype).to(at::kDouble).requires_grad_(true);
    at::Tensor input = x.detach().to(dtype).requires_grad_(true);
    auto [rows, normed] = layer.beside(f.unit.enter(input));
    f.unit.leave(rows * factor + normed).sum().backward();
    at::Tensor expected = at::layer_norm(x, {24}, w, at::zeros({24}, at::kDouble), 1e-5);
    (x * factor.to(at::kDouble) + expected).sum().backward();
    EXPECT_LT(error(input.grad(), x.grad()), tolerance(dtype));
  }
}

TEST(Activate, GatedOrNotIsTheStockOperatorEvenOfStridedInputs) {
  for (at::ScalarType dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    at::Tensor x = draw({6, 5}, 1).to(dtype).to(at::kDouble).requires_grad_(true),
               up = draw({5, 6}, 2).to(dtype).to(at::kDouble).requires_grad_(true);
    at::Tensor gate = x.detach().to(dtype).requires_grad_(true), other = up.detach().to(dtype).requires_grad_(true);
    at::Tensor y = activate_gated(gate.t(), other, Activation::silu), dy = draw({5, 6}, 3).to(dtype);
    y.backward(dy);
    at::Tensor expected = at::silu(x.t()) * up;
    expected.backward(dy.to(at::kDouble));
    EXPECT_LT(error(y.detach(), expected.detach()), tolerance(dtype));
    EXPECT_LT(error(gate.grad(), x.grad()), tolerance(dtype));
    EXPECT_LT(error(other.grad(), up.grad()), tolerance(dtype));
  }
}

}  // namespace
}  // namespace echelon
