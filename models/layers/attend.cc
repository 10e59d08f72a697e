#include "models/layers/attend.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include "cluster/base/error.h"
#include "models/kernels/attention_scratch.h"
#include "models/kernels/dropout.h"
#include "models/layers/head_tensors.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

template <class T>
AttentionTensors<T> tensors_of(const variable_list& x) {
  return {head_rows<const T>(x[0]), head_rows<const T>(x[1]), head_rows<const T>(x[2]), head_rows<T>(x[3]),
          x[4].data_ptr<float>()};
}

/// work(begin, end, scratch) for all parts, side by side where they are worth a thread.
template <class Scratch, class Work>
void share_out(const AttentionShape& shape, int64_t parts, int64_t products_a_part, const Work& work) {
  int64_t grain = 1 + (1 << 16) / std::max<int64_t>(1, products_a_part);
  at::parallel_for(0, parts, grain, [&](int64_t begin, int64_t end) {
    at::Tensor scratch = at::empty({attention_scratch_floats<Scratch>(shape)}, at::kFloat);
    work(begin, end, scratch.mutable_data_ptr<float>());
  });
}

template <class T>
void run_forward(const AttentionShape& shape, const variable_list& tensors) {
  RECORD_USER_SCOPE("kernel: attention forward");
  AttentionTensors<T> rows = tensors_of<T>(tensors);
  int64_t products = kAttentionBlock * shape.keys * shape.width;
  share_out<AttentionForwardScratch>(
      shape, attention_forward_parts(shape), products,
      [&](int64_t begin, int64_t end, float* scratch) { attention_forward(shape, rows, begin, end, scratch); });
}

template <class T>
void run_backward(const AttentionShape& shape, const variable_list& tensors, const at::Tensor& out,
                  const variable_list& gradients) {
  RECORD_USER_SCOPE("kernel: attention backward");
  AttentionTensors<T> rows = tensors_of<T>(tensors);
  AttentionGradients<T> places{head_rows<const T>(out), head_rows<T>(gradients[0]), head_rows<T>(gradients[1]),
                               head_rows<T>(gradients[2])};
  int64_t products = shape.heads / shape.kv_heads * shape.queries * shape.keys * shape.width;
  share_out<AttentionBackwardScratch>(shape, attention_backward_parts(shape), products,
                                      [&](int64_t begin, int64_t end, float* scratch) {
                                        attention_backward(shape, rows, places, begin, end, scratch);
                                      });
}

void check(const at::Tensor& x, at::IntArrayRef sizes, const char* name) {
  if (x.sizes() != sizes) throw Error::shape("attend", name).got(x.sizes()).expected(sizes);
}

/// The kernels take their word for it.
void check(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& options) {
  int64_t batch = q.size(0), heads = q.size(1), kv_heads = k.size(1), keys = k.size(2);
  check(k, {batch, kv_heads, keys, q.size(3)}, "keys");
  check(v, k.sizes(), "values");
  if (kv_heads == 0 || heads % kv_heads != 0)
    throw Error::shape("attend", "heads").got(heads).expected(fmt::format("a multiple of {}", kv_heads));
  for (const at::Tensor& x : {k, v}) {
    if (x.scalar_type() != q.scalar_type()) {
      throw Error::shape("attend", "keys, values")
          .got(c10::toString(x.scalar_type()))
          .expected(c10::toString(q.scalar_type()));
    }
  }
  if (options.key_mask.defined()) check(options.key_mask, {batch, keys}, "key_mask");
  if (options.dropout > 0) check(options.row_keys, {batch, heads, q.size(2)}, "row_keys");
}

struct BlockedAttendFunction : torch::autograd::Function<BlockedAttendFunction> {
  /// The result's shape is that of its memory, [B, T, H, d].
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const AttentionOptions& options) {
    at::Tensor mask = options.key_mask.defined() ? options.key_mask.ne(0).contiguous() : at::Tensor();
    at::Tensor out = empty_rows(q);
    at::Tensor log_sums = at::empty({q.size(0), q.size(1), q.size(2)}, q.options().dtype(at::kFloat));
    variable_list tensors{with_whole_rows(q), with_whole_rows(k), with_whole_rows(v), out.transpose(1, 2), log_sums};
    AttentionShape shape = shape_of(tensors, options, mask);
    q.scalar_type() == at::kFloat ? run_forward<float>(shape, tensors) : run_forward<Bfloat16>(shape, tensors);
    context->save_for_backward({tensors[0], tensors[1], tensors[2], out, log_sums, mask, options.row_keys});
    context->saved_data["causal"] = options.causal;
    context->saved_data["scale"] = options.scale;
    context->saved_data["dropout"] = options.dropout;
    context->saved_data["past"] = options.past;
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto saved = context->get_saved_variables();
    variable_list tensors{saved[0], saved[1], saved[2], saved[3].transpose(1, 2), saved[4]};
    AttentionOptions options{.causal = context->saved_data["causal"].toBool(),
                             .scale = context->saved_data["scale"].toDouble(),
                             .dropout = context->saved_data["dropout"].toDouble(),
                             .past = context->saved_data["past"].toInt(),
                             .row_keys = saved[6]};
    AttentionShape shape = shape_of(tensors, options, saved[5]);
    at::Tensor out = with_whole_rows(gradients[0].transpose(1, 2));
    variable_list places;
    for (int i = 0; i < 3; ++i) places.push_back(empty_rows(tensors[i]).transpose(1, 2));
    out.scalar_type() == at::kFloat ? run_backward<float>(shape, tensors, out, places)
                                    : run_backward<Bfloat16>(shape, tensors, out, places);
    return {places[0], places[1], places[2], {}};
  }

  static AttentionShape shape_of(const variable_list& tensors, const AttentionOptions& options,
                                 const at::Tensor& mask) {
    const at::Tensor &q = tensors[0], &k = tensors[1];
    AttentionShape shape{.batch = q.size(0),
                         .heads = q.size(1),
                         .kv_heads = k.size(1),
                         .queries = q.size(2),
                         .keys = k.size(2),
                         .width = q.size(3),
                         .past = options.past,
                         .causal = options.causal && q.size(2) > 1,
                         .scale = static_cast<float>(options.scale)};
    if (mask.defined()) shape.key_mask = mask.const_data_ptr<bool>();
    if (options.dropout > 0) {
      shape.row_keys = reinterpret_cast<const uint64_t*>(options.row_keys.const_data_ptr<int64_t>());
      shape.dropped_below = dropped_below(options.dropout);
      shape.kept_factor = static_cast<float>(1 / (1 - options.dropout));
    }
    return shape;
  }
};

}  // namespace

at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionOptions& options) {
  check(q, k, v, options);
  if (flash_takes(q, k, options)) return attend_flash(q, k, v, options);
  if (fused_takes(q, k, options)) return attend_fused(q, k, v, options);
  if (!cpu_takes(q)) return attend_whole(q, k, v, options);
  return BlockedAttendFunction::apply(q, k, v, options).transpose(1, 2);
}

}  // namespace echelon
