#include "models/layers/embedding.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comm/autograd.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// Lookup of ids - first; ids outside the local rows give zeros.
struct Lookup : torch::autograd::Function<Lookup> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& entered, const at::Tensor& ids, int64_t parameter_id,
                            int64_t padding_id) {
    const auto* weight = reinterpret_cast<const Parameter*>(parameter_id);
    int64_t first = weight->local().offsets[0], rows = weight->local().sizes[0];
    bool whole = rows == weight->layout().sizes[0];
    at::Tensor local = whole ? ids : ids - first;
    at::Tensor absent = whole ? at::Tensor() : (local < 0).logical_or_(local >= rows);
    at::Tensor mute = padding_id >= 0 ? ids.eq(padding_id) : at::Tensor();
    if (!whole) {
      local = local.masked_fill(absent, 0);
      mute = mute.defined() ? mute.logical_or(absent) : absent;
    }
    context->saved_data["weight"] = parameter_id;
    context->saved_data["ids"] = local;
    if (mute.defined()) context->saved_data["mute"] = mute;
    if (rows == 0) return at::zeros({ids.numel(), weight->local().sizes[1]}, weight->value().options());
    at::Tensor out = weight->value().detach().index_select(0, local);
    return whole ? out : out.masked_fill_(absent.unsqueeze(1), 0);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto* weight = reinterpret_cast<const Parameter*>(context->saved_data["weight"].toInt());
    at::Tensor gradient = gradients[0];
    auto mute = context->saved_data.find("mute");
    if (mute != context->saved_data.end()) gradient = gradient.masked_fill(mute->second.toTensor().unsqueeze(1), 0);
    if (weight->trained() && weight->local().sizes[0] > 0) {
      at::Tensor wide = at::zeros(weight->local().sizes, gradient.options().dtype(weight->shard().zero().options.master));
      weight->add_gradient(wide.index_add_(0, context->saved_data["ids"].toTensor(), gradient.to(wide.scalar_type())));
    }
    return {at::zeros({}, gradient.options()), {}, {}, {}};
  }
};

/// The ids of the rows that this rank holds; rows of padding look up row 0.
at::Tensor held(const at::Tensor& ids, const Pass& pass) {
  if (pass.mesh.tp().size() == 1) return ids;
  int64_t missing = pass.rows_held() * pass.mesh.tp().size() - ids.numel();
  return at::constant_pad_nd(ids, {0, missing}).narrow(0, pass.first_row(), pass.rows_held());
}

}  // namespace

Embedding::Embedding(Unit& unit, const std::string& name, int64_t rows, int64_t width, double standard_deviation, bool split,
                     int64_t padding_id)
    : name_(name),
      unit_(unit),
      split_(split),
      padding_id_(padding_id),
      weight_(&unit.add(name + ".weight",
                        split ? Layout::sharded({rows, width}, 0, "tp") : Layout::replicated({rows, width}),
                        {.standard_deviation = standard_deviation})) {}

at::Tensor look_up(const at::Tensor& ids, const at::Tensor& entered, const Parameter& table, int64_t padding_id) {
  return Lookup::apply(entered, ids, reinterpret_cast<int64_t>(&table), padding_id);
}

at::Tensor Embedding::operator()(const at::Tensor& ids, const at::Tensor& entered, const Pass& pass) const {
  at::Tensor which = split_ ? ids : held(ids, pass);
  at::Tensor rows = look_up(which, entered, *weight_, padding_id_);
  for (const EmbeddingReparam* reparam : reparams_) rows = reparam->output(which, entered, rows);
  return split_ ? reduce_scatter_rows(rows, pass.mesh.tp(), weight_->name()) : rows;
}

}  // namespace echelon
