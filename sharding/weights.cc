#include "sharding/weights.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "cluster/base/error.h"
#include "cluster/base/text.h"
#include "sharding/unit.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// Identity on a value; its backward hands the gradient to the Unit's flat memory and to nobody else.
struct Use : torch::autograd::Function<Use> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& value, int64_t parameter) {
    context->saved_data["parameter"] = parameter;
    return value.view_as(value);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    reinterpret_cast<const Parameter*>(context->saved_data["parameter"].toInt())->add_gradient(gradients[0]);
    return {at::Tensor(), at::Tensor()};
  }
};

}  // namespace

Parameter::Parameter(std::string name, Layout layout, Init init, const Mesh& mesh)
    : name_(std::move(name)), layout_(std::move(layout)), init_(init), local_(layout_.local(mesh)) {}

bool Parameter::trained() const { return shard_->trained(); }

at::Tensor Parameter::use() const { return trained() ? Use::apply(value_, reinterpret_cast<int64_t>(this)) : value_; }

at::Tensor Parameter::gradient_place(bool& fresh) const {
  fresh = !std::exchange(has_gradient_, true);
  return shard_->gradient_.narrow(0, offset_, local_.elements()).view(local_.sizes);
}

void Parameter::add_gradient(const at::Tensor& gradient) const {
  bool fresh = false;
  at::Tensor place = gradient_place(fresh);
  fresh ? place.copy_(gradient) : place.add_(gradient);
}

std::vector<const Parameter*> Weights::parameters() const {
  std::vector<const Parameter*> all;
  for (const auto& unit : units) {
    for (const auto& parameter : unit->parameters()) all.push_back(parameter.get());
  }
  return all;
}

const Parameter& Weights::at(const std::string& name) const {
  for (const auto& unit : units) {
    for (const auto& parameter : unit->parameters()) {
      if (parameter->name() == name) return *parameter;
    }
  }
  std::vector<std::string> names;
  for (const Parameter* parameter : parameters()) names.push_back(parameter->name());
  throw Error::internal(name, "no such tensor").remedy(did_you_mean(name, names));
}

int64_t Weights::elements() const {
  int64_t sum = 0;
  for (const Parameter* parameter : parameters()) sum += parameter->layout().elements();
  return sum;
}

std::vector<FlatShard*> Weights::shards() const {
  std::vector<FlatShard*> all;
  for (const auto& unit : units) {
    for (FlatShard* shard : {&unit->trained(), &unit->frozen()}) {
      if (!shard->empty()) all.push_back(shard);
    }
  }
  return all;
}

std::vector<FlatShard*> Weights::trained() const {
  std::vector<FlatShard*> all = shards();
  std::erase_if(all, [](const FlatShard* shard) { return !shard->trained(); });
  return all;
}

void Weights::load(TensorReader& reader) {
  for (FlatShard* shard : shards()) shard->read_owned(shard->master(), reader, "");
  publish(shards());
}

void Weights::assign(const std::map<std::string, at::Tensor>& whole) {
  for (FlatShard* shard : shards()) {
    for (const Segment& segment : shard->segments()) {
      auto found = whole.find(segment.parameter->name());
      if (found == whole.end()) continue;
      at::Tensor local = found->second;
      const Slice& slice = segment.parameter->local();
      for (size_t dim = 0; dim < slice.sizes.size(); ++dim) {
        local = local.narrow(static_cast<int64_t>(dim), slice.offsets[dim], slice.sizes[dim]);
      }
      at::Tensor values = local.reshape({-1}).narrow(0, segment.begin, segment.length);
      shard->master().narrow(0, segment.offset, segment.length).copy_(values);
    }
  }
  publish(shards());
}

namespace {

/// The whole tensor from the tensor parallel ranks' local slices.
at::Tensor join(const Parameter& parameter, const at::Tensor& local, const Group& tp) {
  if (tp.size() == 1 || !parameter.layout().is_sharded_on("tp")) return local;
  int dim = parameter.layout().shards.front().dim;
  int64_t whole = parameter.layout().sizes[dim], part = (whole + tp.size() - 1) / tp.size();
  at::Tensor first = local.transpose(0, dim);
  std::vector<int64_t> sizes = first.sizes().vec();
  sizes[0] = part;
  at::Tensor padded = at::zeros(sizes, local.options());
  padded.narrow(0, 0, first.size(0)).copy_(first);
  sizes[0] = part * tp.size();
  at::Tensor all = at::empty(sizes, local.options());
  tp.all_gather(padded, all, {.name = parameter.name()}).wait();
  return all.narrow(0, 0, whole).transpose(0, dim).contiguous();
}

}  // namespace

void Weights::visit_whole(const std::function<at::Tensor(FlatShard&)>& owned,
                          const std::function<void(const Parameter&, const at::Tensor&)>& visit) const {
  for (FlatShard* shard : shards()) {
    at::Tensor mine = owned(*shard);
    if (!mine.defined()) continue;
    at::Tensor flat = shard->whole(mine);
    for (const Parameter* parameter : shard->parameters()) {
      at::Tensor local =
          flat.narrow(0, parameter->offset(), parameter->local().elements()).view(parameter->local().sizes);
      visit(*parameter, join(*parameter, local, shard->zero().mesh.tp()));
    }
  }
}

void Weights::publish() { publish(trained()); }

void Weights::publish(const std::vector<FlatShard*>& shards) {
  for (FlatShard* shard : shards) shard->publish();
  units.front()->zero().mesh.world().barrier({.name = "publish"});
}

at::Tensor DrawnTensors::read(const std::string& name, const Slice& slice) {
  const Parameter& parameter = weights_.at(name);
  const Init& init = parameter.init();
  Seed seed = seed_.with("init").with(name);
  const std::vector<int64_t>& sizes = parameter.layout().sizes;
  if (init.standard_deviation != 0) return keyed_normal(seed, sizes, slice) * init.standard_deviation;
  if (init.bound != 0) return (keyed_uniform(seed, sizes, slice) * 2 - 1) * init.bound;
  return at::full(slice.sizes, init.constant, at::kDouble);
}

}  // namespace echelon
