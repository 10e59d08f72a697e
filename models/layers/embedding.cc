#include "models/layers/embedding.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include "comm/autograd.h"
#include "models/kernels/add_rows_kernel.h"
#include "models/layers/takes.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

template <class T>
void add_by_kernel(const at::Tensor& table, const at::Tensor& rows, const at::Tensor& ids, const at::Tensor& mute) {
  RECORD_USER_SCOPE("kernel: rows of a lookup");
  const bool* muted = mute.defined() ? mute.const_data_ptr<bool>() : nullptr;
  at::parallel_for(0, table.size(1), 64, [&](int64_t begin, int64_t end) {
    add_rows(table.data_ptr<float>(), static_cast<const T*>(rows.const_data_ptr()), ids.const_data_ptr<int64_t>(),
             muted, ids.numel(), table.size(1), begin, end);
  });
}

template <class T>
void add_on_gpu(const at::Tensor& table, const at::Tensor& rows, const at::Tensor& ids, const at::Tensor& mute) {
  auto [sorted, order] = ids.sort(/*stable=*/true, 0, /*descending=*/false);
  gpu::add_sorted_rows(table.data_ptr<float>(), static_cast<const T*>(rows.const_data_ptr()),
                       {sorted.const_data_ptr<int64_t>(), order.const_data_ptr<int64_t>(),
                        mute.defined() ? mute.const_data_ptr<bool>() : nullptr, ids.numel()},
                       table.size(1));
}

/// Adds rows [N, D] to the rows `ids` of `table`, but not those whose `mute` is set.
void add_rows_to(at::Tensor& table, const at::Tensor& rows, const at::Tensor& ids, const at::Tensor& mute) {
  if (table.scalar_type() == at::kFloat && kernels_take(rows)) {
    bool narrow = rows.scalar_type() == at::kBFloat16;
    if (table.is_cuda()) return (narrow ? add_on_gpu<Bfloat16> : add_on_gpu<float>)(table, rows, ids, mute);
    return (narrow ? add_by_kernel<Bfloat16> : add_by_kernel<float>)(table, rows, ids, mute);
  }
  at::Tensor loud = mute.defined() ? rows.masked_fill(mute.unsqueeze(1), 0) : rows;
  table.index_add_(0, ids, loud.to(table.scalar_type()));
}

/// Lookup of ids - first; ids outside the local rows give zeros.
struct Lookup : torch::autograd::Function<Lookup> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& entered, const at::Tensor& ids,
                            int64_t parameter_id, int64_t padding_id) {
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
    auto mute = context->saved_data.find("mute");
    if (weight->trained() && weight->local().sizes[0] > 0) {
      bool fresh = false;
      at::Tensor place = weight->gradient_place(fresh);
      if (fresh) place.zero_();
      add_rows_to(place, gradients[0].contiguous(), context->saved_data["ids"].toTensor().contiguous(),
                  mute == context->saved_data.end() ? at::Tensor() : mute->second.toTensor());
    }
    return {at::zeros({}, gradients[0].options()), {}, {}, {}};
  }
};

/// The ids of the rows that this rank holds; rows of padding look up row 0.
at::Tensor held(const at::Tensor& ids, const Pass& pass) {
  if (pass.mesh.tp().size() == 1) return ids;
  int64_t missing = pass.rows_held() * pass.mesh.tp().size() - ids.numel();
  return at::constant_pad_nd(ids, {0, missing}).narrow(0, pass.first_row(), pass.rows_held());
}

}  // namespace

Embedding::Embedding(Unit& unit, const std::string& name, int64_t rows, int64_t width, double standard_deviation,
                     bool split, int64_t padding_id)
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
