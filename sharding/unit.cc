#include "sharding/unit.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "cluster/base/error.h"
#include "cluster/base/log.h"

namespace echelon {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Shards start at multiples of 64 bytes for every dtype that is computed in.
constexpr int64_t kAlignment = 32;

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

Unit* unit_of(AutogradContext* context) {
  return reinterpret_cast<Unit*>(context->saved_data["unit"].toInt());
}

/// Identity; its backward is the last of the Unit. Without an input of its own it hands on the anchor.
struct Enter : torch::autograd::Function<Enter> {
  static at::Tensor forward(AutogradContext* context, const std::optional<at::Tensor>& input, const at::Tensor& anchor,
                            int64_t unit) {
    context->saved_data["unit"] = unit;
    context->saved_data["has_input"] = input.has_value();
    return input ? input->view_as(*input) : at::zeros({}, anchor.options());
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    unit_of(context)->after_backward();
    bool has_input = context->saved_data["has_input"].toBool();
    return {has_input ? gradients[0] : at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

/// Identity; its backward is the first of the Unit.
struct Leave : torch::autograd::Function<Leave> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& output, int64_t unit) {
    context->saved_data["unit"] = unit;
    return output.view_as(output);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    unit_of(context)->before_backward();
    return {gradients[0], at::Tensor()};
  }
};

using Body = std::function<at::Tensor(const at::Tensor&)>;

/// Runs the body without a tape, and again with one of its own in backward.
struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& input, const at::Tensor& anchor, int64_t unit,
                            const Body& body) {
    context->saved_data["unit"] = unit;
    context->saved_data["body"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(body));
    context->save_for_backward({input});
    unit_of(context)->gather();
    at::Tensor output = body(input);
    unit_of(context)->release();
    return output;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    Unit* unit = unit_of(context);
    at::Tensor input = context->get_saved_variables()[0].detach().requires_grad_(true);
    unit->before_backward();
    {
      at::AutoGradMode with_gradients(true);
      auto holder = context->saved_data["body"].toCapsule();
      at::Tensor output = static_cast<Holder&>(*holder).body(input);
      torch::autograd::backward({output}, {gradients[0]});
    }
    unit->after_backward();
    return {input.grad(), at::Tensor(), at::Tensor(), at::Tensor()};
  }
  struct Holder : torch::CustomClassHolder {
    explicit Holder(Body body) : body(std::move(body)) {}
    Body body;
  };
};

}  // namespace

Unit::Unit(std::string name, Zero& zero) : name_(std::move(name)), zero_(zero) {}
Unit::~Unit() = default;

Parameter& Unit::add(std::string name, Layout layout, Init init) {
  auto parameter = std::make_unique<Parameter>();
  parameter->name_ = std::move(name);
  parameter->layout_ = std::move(layout);
  parameter->init_ = init;
  parameter->local_ = parameter->layout_.local(zero_.mesh);
  parameter->unit_ = this;
  return *parameters_.emplace_back(std::move(parameter));
}

void Unit::allocate() {
  place_parameters();
  allocate_values();
  allocate_gradients();
  segments_ = zero_.shards_state() ? segments_of(shard_ * dp().rank(), shard_) : segments_of(0, elements_);
}

void Unit::place_parameters() {
  // Replicated tensors first: their offsets, and so their owners, are then equal on every tensor parallel rank.
  if (zero_.mesh.tp().size() > 1) {
    std::stable_partition(parameters_.begin(), parameters_.end(),
                          [](const auto& parameter) { return !parameter->layout().is_sharded_on("tp"); });
  }
  int64_t end = 0;
  for (const auto& parameter : parameters_) {
    parameter->offset_ = end;
    end += round_up(parameter->local().elements(), kAlignment);
  }
  Extent own = extent(dp().size(), zero_.mesh.tp().size());
  elements_ = own.elements;
  replicated_ = own.replicated;
  shard_ = elements_ / dp().size();
}

Unit::Extent Unit::extent(int dp, int tp) const {
  Extent extent{0, 0};
  // The largest local size over `tp` pads all of them alike, so that uneven slices still make equal shards.
  for (int rank = 0; rank < tp; ++rank) {
    int64_t end = 0;
    for (const auto& parameter : parameters_) end += round_up(parameter->layout().local(rank, tp).elements(), kAlignment);
    extent.elements = std::max(extent.elements, end);
  }
  extent.elements = round_up(extent.elements, kAlignment * dp);
  for (const auto& parameter : parameters_) {
    if (!parameter->layout().is_sharded_on("tp")) extent.replicated += round_up(parameter->layout().elements(), kAlignment);
  }
  return extent;
}

void Unit::allocate_values() {
  at::ScalarType dtype = zero_.options.values;
  if (zero_.shards_values()) {
    Window window = dp().allocate(shard_, dtype);
    values_ = window.mine;
    shared_values_ = window.all;
  } else {
    values_ = zero_.shards_state() ? dp().allocate(elements_, dtype).mine : at::zeros({elements_}, options_of(dtype));
  }
  storage_ = c10::Storage(c10::Storage::use_byte_size_t(), elements_ * values_.element_size(),
                          at::DataPtr(nullptr, values_.device()), nullptr, false);
  if (!zero_.shards_values()) set_memory(values_.data_ptr());
  for (const auto& parameter : parameters_) {
    at::Tensor strides_of = at::empty(parameter->local().sizes, at::TensorOptions().dtype(dtype).device(at::kMeta));
    parameter->value_ = at::empty({0}, values_.options())
                            .set_(storage_, parameter->offset_, parameter->local().sizes, strides_of.strides());
    parameter->value_.requires_grad_(true);
  }
}

void Unit::allocate_gradients() {
  at::ScalarType dtype = zero_.options.master;
  if (zero_.shards_gradients()) {
    owned_gradient_ = at::zeros({shard_}, options_of(dtype));
  } else {
    gradient_ = dp().allocate(elements_, dtype).mine;
    owned_gradient_ = zero_.shards_state() ? part(gradient_) : gradient_;
  }
  at::Tensor owned_values = zero_.shards_values() || !zero_.shards_state() ? values_ : part(values_);
  master_ = zero_.keeps_master() ? at::zeros_like(owned_values, options_of(dtype)) : owned_values;
  anchor_ = at::zeros({}, options_of(zero_.options.values)).requires_grad_(true);
}

at::TensorOptions Unit::options_of(at::ScalarType dtype) const { return at::TensorOptions().dtype(dtype).device(dp().device()); }

at::Tensor Unit::part(const at::Tensor& flat) const { return flat.narrow(0, shard_ * dp().rank(), shard_); }

std::vector<Segment> Unit::segments_of(int64_t begin, int64_t length) const {
  std::vector<Segment> segments;
  for (const auto& parameter : parameters_) {
    int64_t first = std::max(begin, parameter->offset());
    int64_t last = std::min(begin + length, parameter->offset() + parameter->local().elements());
    if (first < last) segments.push_back({parameter.get(), first - begin, first - parameter->offset(), last - first});
  }
  return segments;
}

int64_t Unit::replicated() const {
  if (!zero_.shards_state()) return replicated_;
  return std::clamp<int64_t>(replicated_ - shard_ * dp().rank(), 0, shard_);
}

bool Unit::counts_on(const Mesh& mesh, bool replicated_on_tp) const {
  return (zero_.shards_state() || mesh.dp().rank() == 0) && (!replicated_on_tp || mesh.tp().rank() == 0);
}

void Unit::set_memory(void* memory) {
  storage_.unsafeGetStorageImpl()->set_data_ptr_noswap(at::DataPtr(memory, values_.device()));
}

at::Tensor Unit::enter(const at::Tensor& input) {
  gather();
  return Enter::apply(input.defined() ? std::optional(input) : std::nullopt, anchor_, reinterpret_cast<int64_t>(this));
}

at::Tensor Unit::leave(const at::Tensor& output) {
  release();
  return Leave::apply(output, reinterpret_cast<int64_t>(this));
}

at::Tensor Unit::recompute(const Body& body, const at::Tensor& input) {
  return Recompute::apply(input, anchor_, reinterpret_cast<int64_t>(this), body);
}

void Unit::gather() {
  if (gathered_times_++ > 0 || !zero_.shards_values()) return;
  Call call{.name = name_, .purpose = Purpose::parameters};
  if (shared_values_.defined()) {
    // publish() fenced, and nobody writes before the next optimizer step: no barrier, no copy.
    dp().account(call, (elements_ - shard_) * values_.element_size());
    set_memory(shared_values_.data_ptr());
    return;
  }
  gathered_ = at::empty({elements_}, values_.options());
  dp().all_gather(values_, gathered_, call).wait();
  set_memory(gathered_.data_ptr());
}

void Unit::release() {
  EC_CHECK(gathered_times_ > 0, "unit {} is released without having been gathered", name_);
  if (--gathered_times_ > 0 || !zero_.shards_values()) return;
  set_memory(nullptr);
  gathered_ = at::Tensor();
}

void Unit::before_backward() {
  gather();
  if (!zero_.shards_gradients()) return;
  bucket_ = &zero_.buckets.acquire(elements_, zero_.options.master, dp());
  gradient_ = bucket_->memory.narrow(0, 0, elements_);
  forget_gradients();
}

void Unit::after_backward() {
  release();
  bool reduces = zero_.shards_gradients() || zero_.last_micro_step;
  if (!reduces) return;
  for (const auto& parameter : parameters_) {
    if (!parameter->has_gradient_) gradient_.narrow(0, parameter->offset(), parameter->local().elements()).zero_();
  }
  bool accumulate = zero_.shards_gradients() && !zero_.first_micro_step;
  zero_.exchange->reduce(dp(), name_, gradient_, owned_gradient_, accumulate).wait();
  if (!bucket_) return;
  bucket_->free = true;
  bucket_ = nullptr;
  gradient_ = at::Tensor();
}

void Unit::forget_gradients() {
  for (const auto& parameter : parameters_) parameter->has_gradient_ = false;
}

void Unit::publish() {
  Call call{.name = name_, .purpose = Purpose::parameters};
  at::Tensor owned_values = zero_.shards_values() || !zero_.shards_state() ? values_ : part(values_);
  if (zero_.keeps_master()) owned_values.copy_(master_);
  if (zero_.shards_state() && !zero_.shards_values()) dp().all_gather(owned_values, values_, call).wait();
}

void Unit::sum_partial_gradients() {
  if (replicated() == 0) return;
  at::Tensor partial = owned_gradient_.narrow(0, 0, replicated());
  zero_.mesh.tp().all_reduce(partial, {.name = name_, .purpose = Purpose::gradients}).wait();
}

at::Tensor Unit::whole(const at::Tensor& owned) {
  if (owned.numel() == elements_) return owned;
  at::Tensor all = at::empty({elements_}, owned.options());
  dp().all_gather(owned, all, {.name = name_, .purpose = Purpose::control}).wait();
  return all;
}

at::Tensor Unit::Rows::values(const at::Tensor& whole) const { return whole.narrow(0, begin, length).view(slice.sizes); }

std::vector<Unit::Rows> Unit::rows_to_save() const {
  std::vector<Rows> rows;
  for (const Segment& segment : segments_of(shard_ * dp().rank(), shard_)) {
    const Parameter& parameter = *segment.parameter;
    if (!parameter.layout().is_sharded_on("tp") && zero_.mesh.tp().rank() != 0) continue;
    int64_t count = parameter.local().sizes.empty() ? 1 : parameter.local().sizes[0];
    int64_t row = parameter.local().elements() / count;
    // A row that starts in this shard is written whole, though it may end in the next one.
    int64_t first = (segment.begin + row - 1) / row, last = (segment.begin + segment.length + row - 1) / row;
    if (first == last) continue;
    Slice slice = parameter.local();
    slice.offsets[0] += first;
    slice.sizes[0] = last - first;
    rows.push_back({&parameter, slice, parameter.offset() + first * row, (last - first) * row});
  }
  return rows;
}

void Unit::read_owned(at::Tensor& owned, TensorReader& reader, const std::string& prefix) const {
  for (const Segment& segment : segments_) {
    const Parameter& parameter = *segment.parameter;
    int64_t row = parameter.local().elements() / parameter.local().sizes[0];
    int64_t first = segment.begin / row, last = (segment.begin + segment.length + row - 1) / row;
    Slice slice = parameter.local();
    slice.offsets[0] += first;
    slice.sizes[0] = last - first;
    at::Tensor values = reader.read(prefix + parameter.name(), slice).reshape({-1});
    owned.narrow(0, segment.offset, segment.length).copy_(values.narrow(0, segment.begin - first * row, segment.length));
  }
}

}  // namespace echelon
