#include "models/layers/discarded.h"

#include <utility>

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "cluster/base/log.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct Holder : torch::CustomClassHolder {
  explicit Holder(Discarded discarded) : discarded(std::move(discarded)) {}
  Discarded discarded;
};

/// Identity; its backward fills what was discarded.
struct Fill : torch::autograd::Function<Fill> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& output, const c10::intrusive_ptr<Holder>& all) {
    context->saved_data["all"] = c10::IValue::make_capsule(all);
    return output.view_as(output);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    static_cast<Holder&>(*context->saved_data["all"].toCapsule()).discarded.fill();
    return {gradients[0], {}};
  }
};

at::DataPtr exchange_memory(const c10::Storage& storage, at::DataPtr memory) {
  return storage.unsafeGetStorageImpl()->set_data_ptr(std::move(memory));
}

}  // namespace

void Discarded::discard(const at::Tensor& tensor, std::function<at::Tensor()> again) {
  EC_CHECK(tensor.storage().nbytes() == tensor.nbytes() && tensor.is_contiguous(), "a view cannot be discarded");
  entries_.push_back({tensor.storage(), std::move(again)});
}

at::Tensor Discarded::until_backward(const at::Tensor& output) && {
  for (const Entry& entry : entries_) exchange_memory(entry.storage, at::DataPtr(nullptr, entry.storage.device()));
  return output.requires_grad() ? Fill::apply(output, c10::make_intrusive<Holder>(std::move(*this))) : output;
}

void Discarded::fill() {
  RECORD_USER_SCOPE("recompute");
  at::NoGradGuard no_gradients;
  for (Entry& entry : entries_) {
    at::Tensor values = entry.again();
    EC_CHECK(values.nbytes() == entry.storage.nbytes(), "what is computed again has another size");
    exchange_memory(entry.storage, exchange_memory(values.storage(), at::DataPtr(nullptr, values.device())));
  }
  entries_.clear();
}

}  // namespace echelon
