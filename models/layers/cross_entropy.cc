#include "models/layers/cross_entropy.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct CrossEntropyFunction : torch::autograd::Function<CrossEntropyFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits, const at::Tensor& targets, int64_t first,
                            int64_t group_id) {
    const Group& tp = *reinterpret_cast<const Group*>(group_id);
    bool narrow = logits.scalar_type() == at::kBFloat16;
    at::Tensor wide = narrow ? logits.to(at::kFloat) : logits.detach();
    int64_t rows = wide.size(0), columns = wide.size(1);

    at::Tensor largest = columns > 0 ? std::get<0>(wide.max(1)) : at::full({rows}, -1e30, wide.options());
    tp.all_reduce(largest, {.name = "cross_entropy.max", .purpose = Purpose::activations, .reduce = Reduce::max}).wait();
    wide.sub_(largest.unsqueeze(1));

    at::Tensor here = targets - first;
    at::Tensor absent = (here < 0).logical_or_(here >= columns);
    here = here.masked_fill(absent, 0).unsqueeze(1);
    at::Tensor of_target = columns > 0 ? wide.gather(1, here).squeeze(1).masked_fill_(absent, 0) : at::zeros_like(largest);
    wide.exp_();
    at::Tensor sums = at::stack({wide.sum(1), of_target});
    tp.all_reduce(sums, {.name = "cross_entropy.sum", .purpose = Purpose::activations}).wait();

    wide.div_(sums[0].unsqueeze(1));   // probabilities, soon gradients
    if (columns > 0) wide.scatter_add_(1, here, absent.logical_not().to(wide.scalar_type()).neg_().unsqueeze(1));
    context->saved_data["gradient"] = narrow ? wide.to(at::kBFloat16) : wide;
    return (sums[0].log() - sums[1]).sum();
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    at::Tensor gradient = context->saved_data["gradient"].toTensor();
    return {gradient.mul_(gradients[0].to(gradient.scalar_type())), {}, {}, {}};
  }
};

}  // namespace

at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& targets, int64_t first, const Group& tp) {
  return CrossEntropyFunction::apply(logits, targets, first, reinterpret_cast<int64_t>(&tp));
}

}  // namespace echelon
