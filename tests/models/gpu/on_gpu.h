// Inputs, references and bounds for tests of kernels on a GPU.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "models/kernels/kernel_math.h"

namespace echelon::testing {

inline const std::vector<at::ScalarType> kTypes{at::kFloat, at::kBFloat16};

/// Half a unit in the last place, relative.
inline double rounding(at::ScalarType type) { return type == at::kBFloat16 ? 0x1p-8 : 0x1p-24; }

/// Normal draws in float64 that `type` holds exactly.
inline at::Tensor draws(at::IntArrayRef sizes, at::ScalarType type, double deviation = 1) {
  return at::randn(sizes, at::kDouble).mul_(deviation).to(type).to(at::kDouble);
}

/// x on the GPU, in `type`; `shifted`: one element behind an address that 16 divides.
inline at::Tensor on_gpu(const at::Tensor& x, at::ScalarType type, bool shifted = false) {
  at::Tensor memory = at::empty({x.numel() + 1}, at::TensorOptions(at::kCUDA).dtype(type));
  at::Tensor place = memory.narrow(0, shifted ? 1 : 0, x.numel()).view(x.sizes());
  return place.copy_(x);
}

/// `got` is `expected` rounded to its type, but for `relative` of each element and `absolute`.
inline void expect_near(const at::Tensor& got, const at::Tensor& expected, double relative, double absolute) {
  ASSERT_EQ(got.sizes(), expected.sizes());
  at::Tensor error = (got.to(at::kCPU, at::kDouble) - expected).abs();
  at::Tensor bound = expected.abs().mul(1.01 * rounding(got.scalar_type()) + relative).add(absolute);
  EXPECT_TRUE(error.le(bound).all().item<bool>()) << "largest error " << error.max().item<double>();
}

inline void expect_same_bits(const at::Tensor& a, const at::Tensor& b) { EXPECT_TRUE(at::equal(a, b)); }

template <class T>
const T* read(const at::Tensor& x) {
  return x.defined() ? static_cast<const T*>(x.const_data_ptr()) : nullptr;
}
template <class T>
T* written(const at::Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

/// run(T*) for the T of kernels behind `type`.
template <class Run>
void with_type(at::ScalarType type, const Run& run) {
  type == at::kFloat ? run(static_cast<float*>(nullptr)) : run(static_cast<Bfloat16*>(nullptr));
}

}  // namespace echelon::testing
