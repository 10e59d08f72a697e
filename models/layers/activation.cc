#include "models/layers/activation.h"

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include "cluster/base/error.h"
#include "models/kernels/activation_kernel.h"
#include "models/kernels/parallel.h"
#include "models/layers/takes.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

constexpr int64_t kBlock = 16384;  // elements that pay for a thread

at::Tensor by_operators(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::gelu:
      return at::gelu(x);
    case Activation::gelu_tanh:
      return at::gelu(x, "tanh");
    case Activation::silu:
      return at::silu(x);
    case Activation::relu:
      return at::relu(x);
  }
  throw Error::internal("activation", "unknown");
}

template <class T>
T* shifted(const at::Tensor& tensor, int64_t offset) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) + offset : nullptr;
}

template <class T>
void forward(Activation activation, const at::Tensor& x, const at::Tensor& up, const at::Tensor& y) {
  RECORD_USER_SCOPE("kernel: activation forward");
  if (x.is_cuda())
    return gpu::activation_forward(activation, shifted<const T>(x, 0), shifted<const T>(up, 0), shifted<T>(y, 0),
                                   x.numel());
  for_blocks(x.numel(), kBlock, [&](int64_t begin, int64_t end) {
    activation_forward(activation, shifted<const T>(x, begin), shifted<const T>(up, begin), shifted<T>(y, begin),
                       end - begin);
  });
}

template <class T>
void backward(Activation activation, const at::Tensor& x, const at::Tensor& up, const at::Tensor& dy,
              const at::Tensor& dx, const at::Tensor& dup) {
  RECORD_USER_SCOPE("kernel: activation backward");
  if (x.is_cuda())
    return gpu::activation_backward(activation, shifted<const T>(x, 0), shifted<const T>(up, 0),
                                    shifted<const T>(dy, 0), shifted<T>(dx, 0), shifted<T>(dup, 0), x.numel());
  for_blocks(x.numel(), kBlock, [&](int64_t begin, int64_t end) {
    activation_backward(activation, shifted<const T>(x, begin), shifted<const T>(up, begin),
                        shifted<const T>(dy, begin), shifted<T>(dx, begin), shifted<T>(dup, begin), end - begin);
  });
}

/// `up` may be undefined: not gated.
struct ActivationFunction : torch::autograd::Function<ActivationFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& given,
                            const std::optional<at::Tensor>& given_up, int64_t activation) {
    at::Tensor x = given.contiguous(), up = given_up ? given_up->contiguous() : at::Tensor();
    context->save_for_backward({x, up});
    context->saved_data["activation"] = activation;
    at::Tensor y = at::empty_like(x);
    auto run = x.scalar_type() == at::kFloat ? echelon::forward<float> : echelon::forward<Bfloat16>;
    run(static_cast<Activation>(activation), x, up, y);
    return y;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    at::Tensor x = saved[0], up = saved[1], dy = gradients[0].contiguous();
    at::Tensor dx = at::empty_like(x), dup = up.defined() ? at::empty_like(up) : at::Tensor();
    auto run = x.scalar_type() == at::kFloat ? echelon::backward<float> : echelon::backward<Bfloat16>;
    run(static_cast<Activation>(context->saved_data["activation"].toInt()), x, up, dy, dx, dup);
    return {dx, dup, {}};
  }
};

}  // namespace

at::Tensor activate(const at::Tensor& x, Activation activation) {
  if (!kernels_take(x)) return by_operators(x, activation);
  return ActivationFunction::apply(x, std::optional<at::Tensor>(), static_cast<int64_t>(activation));
}

at::Tensor activate_gated(const at::Tensor& gate, const at::Tensor& up, Activation activation) {
  if (!kernels_take(gate)) return by_operators(gate, activation) * up;
  return ActivationFunction::apply(gate, std::optional(up), static_cast<int64_t>(activation));
}

}  // namespace echelon
