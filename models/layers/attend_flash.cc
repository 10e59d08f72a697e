#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/layers/attend.h"
#include "models/layers/head_tensors.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// While this lives, operators that sum in whatever order threads arrive sum in a fixed one, or refuse.
class FixedOrder {
 public:
  FixedOrder() {
    context_.setDeterministicAlgorithms(true, /*warn_only=*/false);
    context_.setDeterministicFillUninitializedMemory(false);  // all of it is written
  }
  FixedOrder(const FixedOrder&) = delete;
  FixedOrder& operator=(const FixedOrder&) = delete;
  ~FixedOrder() {
    context_.setDeterministicAlgorithms(was_, warned_);
    context_.setDeterministicFillUninitializedMemory(filled_);
  }

 private:
  at::Context& context_ = at::globalContext();
  bool was_ = context_.deterministicAlgorithms(), warned_ = context_.deterministicAlgorithmsWarnOnly();
  bool filled_ = context_.deterministicFillUninitializedMemory();
};

struct FlashFunction : torch::autograd::Function<FlashFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            bool causal, double scale) {
    variable_list x{with_whole_rows(q), with_whole_rows(k), with_whole_rows(v)};
    auto result = at::_scaled_dot_product_flash_attention(x[0], x[1], x[2], /*dropout_p=*/0, causal,
                                                          /*return_debug_mask=*/false, scale);
    const at::Tensor& out = std::get<0>(result);
    context->save_for_backward(
        {x[0], x[1], x[2], out, /*log_sums=*/std::get<1>(result), std::get<6>(result), std::get<7>(result)});
    context->saved_data["causal"] = causal;
    context->saved_data["scale"] = scale;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], none;
    FixedOrder fixed_order;
    auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_backward(
        with_whole_rows(gradients[0]), q, k, v, saved[3], saved[4], none, none, q.size(2), k.size(2), /*dropout_p=*/0,
        context->saved_data["causal"].toBool(), saved[5], saved[6], context->saved_data["scale"].toDouble());
    return {dq, dk, dv, {}, {}};
  }
};

}  // namespace

bool flash_takes(const at::Tensor& q, const at::Tensor& k, const AttentionOptions& options) {
  int64_t queries = q.size(2), keys = k.size(2), width = q.size(3);
  bool from_the_start = queries == keys && options.past == 0;
  return q.is_cuda() && q.scalar_type() == at::kBFloat16 && q.numel() > 0 && keys > 0 && width % 8 == 0 &&
         width <= 256 && options.dropout <= 0 && !options.key_mask.defined() &&
         (!options.causal || queries == 1 || from_the_start);
}

at::Tensor attend_flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        const AttentionOptions& options) {
  return FlashFunction::apply(q, k, v, options.causal && q.size(2) > 1, options.scale);
}

}  // namespace echelon
