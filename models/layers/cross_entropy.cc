#include "models/layers/cross_entropy.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "models/kernels/cross_entropy_kernel.h"
#include "models/layers/products.h"
#include "models/layers/takes.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// How the rows of logits are agreed on over ranks that hold parts of the vocabulary.
void agree(at::Tensor& tensor, const Group& tp, Reduce reduce) {
  const char* name = reduce == Reduce::max ? "cross_entropy.max" : "cross_entropy.sum";
  tp.all_reduce(tensor, {.name = name, .purpose = Purpose::activations, .reduce = reduce}).wait();
}

/// Cross-entropies [n] of logits [n, columns], which become their own gradient where `learns`. `here`: targets, counted
/// from the first column.
at::Tensor by_operators(at::Tensor& logits, const at::Tensor& here, const Group& tp, bool learns) {
  bool narrow = logits.scalar_type() == at::kBFloat16;
  at::Tensor wide = narrow ? logits.to(at::kFloat) : logits;
  int64_t rows = wide.size(0), columns = wide.size(1);
  at::Tensor largest = columns > 0 ? std::get<0>(wide.max(1)) : at::full({rows}, -1e30, wide.options());
  agree(largest, tp, Reduce::max);
  wide.sub_(largest.unsqueeze(1));
  at::Tensor absent = (here < 0).logical_or_(here >= columns);
  at::Tensor index = here.masked_fill(absent, 0).unsqueeze(1);
  at::Tensor of_target =
      columns > 0 ? wide.gather(1, index).squeeze(1).masked_fill_(absent, 0) : at::zeros_like(largest);
  wide.exp_();
  at::Tensor sums = at::stack({wide.sum(1), of_target});
  agree(sums, tp, Reduce::sum);
  if (learns) {
    wide.div_(sums[0].unsqueeze(1));
    if (columns > 0) wide.scatter_add_(1, index, absent.logical_not().to(wide.scalar_type()).neg_().unsqueeze(1));
    if (narrow) logits.copy_(wide);
  }
  return sums[0].log() - sums[1];
}

/// The kernels of the device that holds the logits.
template <class T>
struct RowSteps {
  void (*max)(const T* logits, int64_t rows, int64_t columns, float* largest);
  void (*sum)(const T* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest, float* sums,
              float* of_target);
  void (*gradient)(T* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                   const float* sums);
};

template <class T>
RowSteps<T> steps_on(const at::Tensor& logits) {
  if (logits.is_cuda()) return {gpu::row_max, gpu::row_sum, gpu::row_gradient};
  return {row_max, row_sum, row_gradient};
}

/// Rows that pay for a thread of the processor; a GPU takes all at once.
int64_t grain_of(const at::Tensor& logits) {
  return std::max<int64_t>(1, logits.is_cuda() ? logits.size(0) : 16384 / std::max<int64_t>(1, logits.size(1)));
}

/// The same without temporaries.
template <class T>
at::Tensor by_kernel(at::Tensor& logits, const at::Tensor& here, const Group& tp, bool learns) {
  RECORD_USER_SCOPE("kernel: cross-entropy");
  int64_t rows = logits.size(0), columns = logits.size(1);
  at::TensorOptions wide = logits.options().dtype(at::kFloat);
  at::Tensor largest = at::empty({rows}, wide), sums = at::empty({2, rows}, wide);
  RowSteps<T> steps = steps_on<T>(logits);
  T* of_row = static_cast<T*>(logits.data_ptr());
  const int64_t* targets = here.const_data_ptr<int64_t>();
  float *most = largest.data_ptr<float>(), *sum = sums.data_ptr<float>(), *of_target = sum + rows;
  auto in_parallel = [&](const auto& step) {
    at::parallel_for(0, rows, grain_of(logits),
                     [&](int64_t begin, int64_t end) { step(of_row + begin * columns, begin, end - begin); });
  };
  in_parallel([&](T* row, int64_t begin, int64_t count) { steps.max(row, count, columns, most + begin); });
  agree(largest, tp, Reduce::max);
  in_parallel([&](T* row, int64_t begin, int64_t count) {
    steps.sum(row, count, columns, targets + begin, most + begin, sum + begin, of_target + begin);
  });
  agree(sums, tp, Reduce::sum);
  if (learns) {
    in_parallel([&](T* row, int64_t begin, int64_t count) {
      steps.gradient(row, count, columns, targets + begin, most + begin, sum + begin);
    });
  }
  return sums[0].log() - sums[1];
}

at::Tensor cross_entropies(at::Tensor& logits, const at::Tensor& here, const Group& tp, bool learns) {
  if (!kernels_take(logits)) return by_operators(logits, here, tp, learns);
  return (logits.scalar_type() == at::kFloat ? by_kernel<float> : by_kernel<Bfloat16>)(logits, here, tp, learns);
}

/// Rows whose logits are taken at once: the same on every rank, and few enough that a processor's last cache holds
/// them, or that a GPU has room for them beside all else.
int64_t chunk_rows(const Parameter& weight, const Group& tp) {
  constexpr int64_t kCacheBytes = 8 << 20, kGpuBytes = 512 << 20, kLeastRows = 256;
  int64_t logit_bytes = weight.value().is_cuda() ? kGpuBytes : kCacheBytes;
  int64_t row_bytes = (weight.layout().sizes[0] + tp.size() - 1) / tp.size() * weight.value().element_size();
  return std::max(kLeastRows, logit_bytes / row_bytes);
}

/// What the head's backward hands on, made in forward: gradients of the sum of cross-entropies.
struct Gradients {
  at::Tensor x, weight, bias;

  void add(const at::Tensor& of_logits, const at::Tensor& rows, int64_t begin, const Parameter& head) {
    if (x.defined()) x.narrow(0, begin, rows.size(0)).copy_(product(of_logits, head.value()));
    if (weight.defined()) add_outer_product(weight, /*fresh=*/begin == 0, of_logits, rows);
    if (bias.defined()) bias.add_(of_logits.sum(0));
  }
};

Gradients room_for_gradients(const at::Tensor& x, const Parameter& weight, const Parameter* bias) {
  at::TensorOptions sums = x.options().dtype(weight.shard().zero().options.master);
  // The first chunk overwrites, if there is one.
  auto room = [&](at::IntArrayRef sizes) { return x.size(0) > 0 ? at::empty(sizes, sums) : at::zeros(sizes, sums); };
  return {.x = at::empty_like(x),
          .weight = weight.trained() ? room(weight.local().sizes) : at::Tensor(),
          .bias = bias && bias->trained() ? at::zeros(bias->local().sizes, sums) : at::Tensor()};
}

struct HeadFunction : torch::autograd::Function<HeadFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, int64_t weight_id, int64_t bias_id,
                            const at::Tensor& here, int64_t group_id, bool learns) {
    const auto& weight = *reinterpret_cast<const Parameter*>(weight_id);
    const auto* bias = reinterpret_cast<const Parameter*>(bias_id);
    const Group& tp = *reinterpret_cast<const Group*>(group_id);
    Gradients gradients = learns ? room_for_gradients(x, weight, bias) : Gradients();
    at::Tensor total = at::zeros({}, x.options().dtype(at::kDouble));
    for (int64_t begin = 0, step = chunk_rows(weight, tp); begin < x.size(0); begin += step) {
      int64_t count = std::min(step, x.size(0) - begin);
      at::Tensor rows = x.narrow(0, begin, count);
      at::Tensor logits = product_transposed(rows, weight.value(), bias ? bias->value() : at::Tensor());
      total.add_(cross_entropies(logits, here.narrow(0, begin, count), tp, learns).sum(at::kDouble));
      if (learns) gradients.add(logits, rows, begin, weight);
    }
    context->saved_data["weight"] = weight_id;
    context->saved_data["bias"] = bias_id;
    context->saved_data["of_x"] = gradients.x;
    context->saved_data["of_weight"] = gradients.weight;
    context->saved_data["of_bias"] = gradients.bias;
    return x.scalar_type() == at::kDouble ? total : total.to(at::kFloat);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    auto scaled = [&](const char* name) {
      at::Tensor gradient = context->saved_data[name].toTensor();
      return gradient.defined() ? gradient.mul_(gradients[0]) : gradient;
    };
    auto add = [&](const char* parameter, const char* name) {
      at::Tensor gradient = scaled(name);
      if (gradient.defined())
        reinterpret_cast<const Parameter*>(context->saved_data[parameter].toInt())->add_gradient(gradient);
    };
    add("weight", "of_weight");
    add("bias", "of_bias");
    return {scaled("of_x"), {}, {}, {}, {}, {}};
  }
};

struct LogitsFunction : torch::autograd::Function<LogitsFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& logits, const at::Tensor& here,
                            int64_t group_id, bool learns) {
    at::Tensor own = logits.clone(at::MemoryFormat::Contiguous);
    at::Tensor total = cross_entropies(own, here, *reinterpret_cast<const Group*>(group_id), learns).sum(at::kDouble);
    if (learns) context->saved_data["gradient"] = own;
    return logits.scalar_type() == at::kDouble ? total : total.to(at::kFloat);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {context->saved_data["gradient"].toTensor().mul_(gradients[0]), {}, {}, {}};
  }
};

}  // namespace

at::Tensor head_cross_entropy_sum(const at::Tensor& x, const Parameter& weight, const Parameter* bias,
                                  const at::Tensor& targets, int64_t first, const Group& tp) {
  bool learns = at::GradMode::is_enabled() && x.requires_grad();
  return HeadFunction::apply(x.contiguous(), reinterpret_cast<int64_t>(&weight), reinterpret_cast<int64_t>(bias),
                             targets - first, reinterpret_cast<int64_t>(&tp), learns);
}

at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& targets, int64_t first, const Group& tp) {
  bool learns = at::GradMode::is_enabled() && logits.requires_grad();
  return LogitsFunction::apply(logits, targets - first, reinterpret_cast<int64_t>(&tp), learns);
}

}  // namespace echelon
