#include "models/layers/rotary.h"

#include <map>
#include <mutex>
#include <tuple>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/kernels/rotary_kernel.h"
#include "models/layers/head_tensors.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// Of the angles of positions 0 to …, rounded to the type of what they turn. [positions, d / 2]
struct Angles {
  at::Tensor cosine, sine;

  Angles narrow(int64_t first, int64_t count) const {
    return {cosine.narrow(0, first, count), sine.narrow(0, first, count)};
  }
};

Angles make_angles(const Architecture& a, int64_t half, int64_t positions, const at::TensorOptions& options) {
  // As in the reference implementations, angles are float32 whatever the computation; float64 stays float64.
  at::TensorOptions wide = options.dtype(options.dtype() == at::kDouble ? at::kDouble : at::kFloat);
  at::Tensor exponents = at::arange(half, wide).mul_(2.0 / static_cast<double>(2 * half));
  at::Tensor frequencies = at::pow(a.rope_theta, exponents).reciprocal_().div_(a.rope_linear_factor);
  at::Tensor angles = at::outer(at::arange(positions, wide), frequencies);
  return {angles.cos().to(options.dtype()), angles.sin().to(options.dtype())};
}

/// Made once and kept, for all layers: ranks may be threads of one process.
Angles kept_angles(const Architecture& a, int64_t half, int64_t positions, const at::TensorOptions& like) {
  static std::mutex mutex;
  // Never freed: when the process ends, a GPU's driver may be gone before it.
  static auto& kept = *new std::map<std::tuple<double, double, int64_t, at::ScalarType, at::DeviceType>, Angles>;
  std::lock_guard lock(mutex);
  at::ScalarType type = c10::typeMetaToScalarType(like.dtype());
  Angles& angles = kept[{a.rope_theta, a.rope_linear_factor, half, type, like.device().type()}];
  if (!angles.cosine.defined() || angles.cosine.size(0) < positions) {
    at::NoGradGuard no_gradients;
    Angles made = make_angles(a, half, 2 * positions, like);
    angles = {made.cosine.to(at::kFloat), made.sine.to(at::kFloat)};
  }
  return angles;
}

template <class T>
void turn_rows(const at::Tensor& x, const at::Tensor& out, const Angles& angles, float direction) {
  RECORD_USER_SCOPE("kernel: rotary");
  RotaryShape shape{x.size(1),
                    x.size(2),
                    x.size(3),
                    direction,
                    angles.cosine.const_data_ptr<float>(),
                    angles.sine.const_data_ptr<float>()};
  if (x.is_cuda()) return gpu::rotary(shape, head_rows<const T>(x), head_rows<T>(out), 0, x.size(0) * x.size(2));
  int64_t grain = 1 + 16384 / std::max<int64_t>(1, x.size(1) * x.size(3));
  at::parallel_for(0, x.size(0) * x.size(2), grain, [&](int64_t begin, int64_t end) {
    rotary(shape, head_rows<const T>(x), head_rows<T>(out), begin, end);
  });
}

struct KernelFunction : torch::autograd::Function<KernelFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const Angles& angles) {
    context->saved_data["cosine"] = angles.cosine;
    context->saved_data["sine"] = angles.sine;
    return turned(x, angles, 1);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    Angles angles{context->saved_data["cosine"].toTensor(), context->saved_data["sine"].toTensor()};
    return {turned(gradients[0].transpose(1, 2), angles, -1).transpose(1, 2), {}};
  }
  /// x [B, H, T, d]; the result's shape is that of its memory, [B, T, H, d].
  static at::Tensor turned(const at::Tensor& x, const Angles& angles, float direction) {
    at::Tensor rows = with_whole_rows(x), out = empty_rows(x), places = out.transpose(1, 2);
    x.scalar_type() == at::kFloat ? turn_rows<float>(rows, places, angles, direction)
                                  : turn_rows<Bfloat16>(rows, places, angles, direction);
    return out;
  }
};

at::Tensor turned_halves(const at::Tensor& x, const Angles& angles) {
  auto halves = x.chunk(2, -1);
  return at::cat(
      {halves[0] * angles.cosine - halves[1] * angles.sine, halves[1] * angles.cosine + halves[0] * angles.sine}, -1);
}

}  // namespace

at::Tensor rotate(const at::Tensor& x, int64_t first_position, const Architecture& architecture) {
  int64_t half = x.size(3) / 2, end = first_position + x.size(2);
  if (kernels_take(x)) {
    Angles angles = kept_angles(architecture, half, end, x.options()).narrow(first_position, x.size(2));
    return KernelFunction::apply(x, angles).transpose(1, 2);
  }
  return turned_halves(x, make_angles(architecture, half, end, x.options()).narrow(first_position, x.size(2)));
}

}  // namespace echelon
