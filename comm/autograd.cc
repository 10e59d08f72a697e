#include "comm/autograd.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "cluster/base/error.h"

namespace echelon {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

/// What forward hands to backward. The Group outlives the tape: it belongs to the job's Mesh.
void remember(AutogradContext* context, const Group& group, const std::string& name, int64_t rows) {
  context->saved_data["group"] = reinterpret_cast<int64_t>(&group);
  context->saved_data["name"] = name;
  context->saved_data["rows"] = rows;
}
const Group& group_of(AutogradContext* context) {
  return *reinterpret_cast<const Group*>(context->saved_data["group"].toInt());
}
Call call_of(AutogradContext* context) {
  return {.name = context->saved_data["name"].toStringRef() + " backward", .purpose = Purpose::activations};
}
int64_t rows_of(AutogradContext* context) { return context->saved_data["rows"].toInt(); }

int64_t shard_rows(int64_t rows, const Group& group) { return (rows + group.size() - 1) / group.size(); }

std::vector<int64_t> with_rows(const at::Tensor& x, int64_t rows) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[0] = rows;
  return sizes;
}

/// The first `rows` rows of the shards side by side.
at::Tensor gathered(const at::Tensor& shard, int64_t rows, const Group& group, const Call& call) {
  at::Tensor full = at::empty(with_rows(shard, shard.size(0) * group.size()), shard.options());
  group.all_gather(shard.contiguous(), full, call).wait();
  return full.size(0) == rows ? full : full.narrow(0, 0, rows).contiguous();
}

/// `whole` with zero rows behind it, until every rank has as many.
at::Tensor padded(const at::Tensor& whole, const Group& group) {
  int64_t missing = shard_rows(whole.size(0), group) * group.size() - whole.size(0);
  if (missing == 0) return whole.contiguous();
  return at::cat({whole, at::zeros(with_rows(whole, missing), whole.options())});
}

at::Tensor reduced(const at::Tensor& partial, const Group& group, const Call& call) {
  at::Tensor shard = at::empty(with_rows(partial, shard_rows(partial.size(0), group)), partial.options());
  group.reduce_scatter(padded(partial, group), shard, call).wait();
  return shard;
}

/// This rank's rows of `whole`, padded; memory of its own.
at::Tensor sliced(const at::Tensor& whole, const Group& group) {
  int64_t rows = shard_rows(whole.size(0), group);
  int64_t begin = std::min(rows * group.rank(), whole.size(0));
  int64_t there = std::min(rows, whole.size(0) - begin);
  at::Tensor shard = at::zeros(with_rows(whole, rows), whole.options());
  shard.narrow(0, 0, there).copy_(whole.narrow(0, begin, there));
  return shard;
}

struct GatherRows : torch::autograd::Function<GatherRows> {
  static Variable forward(AutogradContext* context, const Variable& shard, int64_t rows, const Group& group,
                          const Call& call) {
    remember(context, group, call.name, rows);
    return gathered(shard, rows, group, call);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {reduced(gradients[0], group_of(context), call_of(context)), {}, {}, {}};
  }
};

struct ReduceScatterRows : torch::autograd::Function<ReduceScatterRows> {
  static Variable forward(AutogradContext* context, const Variable& partial, const Group& group, const Call& call) {
    remember(context, group, call.name, partial.size(0));
    return reduced(partial, group, call);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {gathered(gradients[0], rows_of(context), group_of(context), call_of(context)), {}, {}};
  }
};

struct ScatterRows : torch::autograd::Function<ScatterRows> {
  static Variable forward(AutogradContext* context, const Variable& whole, const Group& group, const Call& call) {
    remember(context, group, call.name, whole.size(0));
    return sliced(whole, group);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {gathered(gradients[0], rows_of(context), group_of(context), call_of(context)), {}, {}};
  }
};

struct GatherRowsReplicated : torch::autograd::Function<GatherRowsReplicated> {
  static Variable forward(AutogradContext* context, const Variable& shard, int64_t rows, const Group& group,
                          const Call& call) {
    remember(context, group, call.name, rows);
    return gathered(shard, rows, group, call);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    return {sliced(gradients[0], group_of(context)), {}, {}, {}};
  }
};

Call forward_call(const std::string& name) { return {.name = name, .purpose = Purpose::activations}; }

void check_shard(std::string_view operation, const at::Tensor& shard, int64_t rows, const Group& group,
                 const std::string& name) {
  if (shard.dim() > 0 && shard.size(0) == shard_rows(rows, group)) return;
  Error error = Error::shape(operation, name);
  throw error.got(shard.sizes()).expected(fmt::format("{} of {} rows", shard_rows(rows, group), rows));
}

void check_rows(std::string_view operation, const at::Tensor& whole, const std::string& name) {
  if (whole.dim() > 0) return;
  Error error = Error::shape(operation, name);
  throw error.got("a scalar").expected("rows");
}

}  // namespace

at::Tensor gather_rows(const at::Tensor& shard, int64_t rows, const Group& group, const std::string& name) {
  check_shard("gather_rows", shard, rows, group, name);
  return group.size() == 1 ? shard : GatherRows::apply(shard, rows, group, forward_call(name));
}

at::Tensor reduce_scatter_rows(const at::Tensor& partial, const Group& group, const std::string& name) {
  check_rows("reduce_scatter_rows", partial, name);
  return group.size() == 1 ? partial : ReduceScatterRows::apply(partial, group, forward_call(name));
}

at::Tensor scatter_rows(const at::Tensor& whole, const Group& group, const std::string& name) {
  check_rows("scatter_rows", whole, name);
  return group.size() == 1 ? whole : ScatterRows::apply(whole, group, forward_call(name));
}

at::Tensor gather_rows_replicated(const at::Tensor& shard, int64_t rows, const Group& group, const std::string& name) {
  check_shard("gather_rows_replicated", shard, rows, group, name);
  return group.size() == 1 ? shard : GatherRowsReplicated::apply(shard, rows, group, forward_call(name));
}

at::Tensor gather_with_gradient(const at::Tensor& mine, const Group& group, const std::string& name) {
  check_rows("gather_with_gradient", mine, name);
  return gather_rows(mine, mine.size(0) * group.size(), group, name);
}

}  // namespace echelon
