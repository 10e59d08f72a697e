// Norms on a GPU against float64: errors of 1e-5 of the largest term, and one rounding to the stored type.
#include "models/kernels/norm_kernel.h"

#include "tests/models/gpu/on_gpu.h"

namespace echelon {
namespace {

using testing::draws;
using testing::expect_near;
using testing::expect_same_bits;
using testing::on_gpu;
using testing::read;
using testing::written;

constexpr float kEpsilon = 1e-5f;
constexpr int64_t kRowsPerSum = 32;

struct Shape {
  int64_t rows, columns;
  bool layer, residual, shifted;
};

/// Both directions: results of the kernels, or of the formula in float64.
struct Norm {
  at::Tensor y, dx, dweight, dbias;
};

struct Inputs {
  Inputs(const Shape& shape, at::ScalarType type)
      : x(draws({shape.rows, shape.columns}, type, 2)),
        dy(draws(x.sizes(), type)),
        residual(draws(x.sizes(), type)),
        weight(draws({shape.columns}, type)),
        bias(draws({shape.columns}, type)) {}
  at::Tensor x, dy, residual, weight, bias;
};

Norm reference(const Inputs& in, const Shape& shape) {
  at::Tensor centred = shape.layer ? in.x - in.x.mean(1, true) : in.x;
  at::Tensor scale = (centred.square().mean(1, true) + kEpsilon).rsqrt(), normalised = centred * scale;
  at::Tensor g = in.dy * in.weight, rest = g - normalised * (g * normalised).mean(1, true);
  if (shape.layer) rest = rest - g.mean(1, true);
  return {shape.layer ? normalised * in.weight + in.bias : normalised * in.weight,
          shape.residual ? rest * scale + in.residual : rest * scale, (in.dy * normalised).sum(0),
          shape.layer ? in.dy.sum(0) : at::zeros_like(in.bias)};
}

template <class T>
Norm by_kernel(const Inputs& in, const Shape& s, at::ScalarType type) {
  auto there = [&](const at::Tensor& x) { return on_gpu(x, type, s.shifted); };
  at::Tensor x = there(in.x), weight = there(in.weight), bias = s.layer ? there(in.bias) : at::Tensor();
  at::Tensor dy = there(in.dy), residual = s.residual ? there(in.residual) : at::Tensor();
  at::Tensor statistics = at::empty({2, s.rows + 1}, x.options().dtype(at::kFloat));
  at::Tensor sums = at::zeros({2, (s.rows + kRowsPerSum - 1) / kRowsPerSum, s.columns}, statistics.options());
  Norm n{there(at::zeros_like(in.x)), there(at::zeros_like(in.x)), {}, {}};
  NormRows<T> rows{
      read<T>(x), read<T>(weight), read<T>(bias), statistics[0].data_ptr<float>(), statistics[1].data_ptr<float>(),
      s.rows,     s.columns};
  gpu::norm_forward(rows, kEpsilon, written<T>(n.y));
  gpu::norm_backward(rows, read<T>(dy), read<T>(residual), written<T>(n.dx), sums[0].data_ptr<float>(),
                     sums[1].data_ptr<float>(), kRowsPerSum);
  n.dweight = sums[0].sum(0);
  n.dbias = sums[1].sum(0);
  return n;
}

Norm by_kernel(const Inputs& in, const Shape& shape, at::ScalarType type) {
  return type == at::kFloat ? by_kernel<float>(in, shape, type) : by_kernel<Bfloat16>(in, shape, type);
}

void check(const Shape& shape, at::ScalarType type) {
  SCOPED_TRACE(::testing::Message() << shape.rows << " x " << shape.columns << ", layer " << shape.layer << ", "
                                    << c10::toString(type));
  Inputs in(shape, type);
  Norm got = by_kernel(in, shape, type), again = by_kernel(in, shape, type), expected = reference(in, shape);
  double of_sums = 1e-5 * (1 + static_cast<double>(shape.rows));
  expect_near(got.y, expected.y, 1e-5, 1e-5);
  expect_near(got.dx, expected.dx, 1e-5, 1e-4);
  expect_near(got.dweight, expected.dweight, 1e-5, of_sums);
  expect_near(got.dbias, expected.dbias, 1e-5, of_sums);
  expect_same_bits(got.dx, again.dx);
  expect_same_bits(got.dweight, again.dweight);
  expect_same_bits(got.dbias, again.dbias);
}

TEST(GpuNorm, IsTheFormulaInBothDirections) {
  for (at::ScalarType type : testing::kTypes) {
    for (int64_t rows : {0, 1, 33, 700}) {
      for (int64_t columns : {8, 33, 768, 1003, 8192}) {
        for (bool layer : {true, false}) {
          check({rows, columns, layer, layer, false}, type);
          check({rows, columns, layer, !layer, true}, type);
        }
      }
    }
  }
}

}  // namespace
}  // namespace echelon
