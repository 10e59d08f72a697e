#include "sharding/flat_shard.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "cluster/base/error.h"

namespace echelon {

namespace {

// Shards start at multiples of 64 bytes for every dtype that is computed in.
constexpr int64_t kAlignment = 32;

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// Elements of a row of this rank's slice; a scalar is one row.
int64_t row_of(const Parameter& parameter) {
  const Slice& local = parameter.local();
  return local.elements() / (local.sizes.empty() ? 1 : local.sizes[0]);
}

}  // namespace

FlatShard::FlatShard(std::string name, Zero& zero, bool trained)
    : name_(std::move(name)), zero_(zero), trained_(trained) {}

void FlatShard::add(Parameter& parameter) {
  parameters_.push_back(&parameter);
  parameter.shard_ = this;
}

void FlatShard::remove(Parameter& parameter) { std::erase(parameters_, &parameter); }

void FlatShard::allocate() {
  if (empty()) return;
  place_parameters();
  allocate_values();
  if (trained_) allocate_gradients();
  master_ = trained_ && zero_.keeps_master() ? at::zeros_like(owned_values(), options_of(zero_.options.master))
                                             : owned_values();
  segments_ = zero_.shards_state() ? segments_of(shard_ * replica().rank(), shard_) : segments_of(0, elements_);
}

void FlatShard::place_parameters() {
  // Replicated tensors first: their offsets, and so their owners, are then equal on every tensor parallel rank.
  if (zero_.mesh.tp().size() > 1) {
    std::stable_partition(parameters_.begin(), parameters_.end(),
                          [](const Parameter* parameter) { return !parameter->layout().is_sharded_on("tp"); });
  }
  int64_t end = 0;
  for (Parameter* parameter : parameters_) {
    parameter->offset_ = end;
    end += round_up(parameter->local().elements(), kAlignment);
  }
  Extent own = extent(replica().size(), zero_.mesh.tp().size());
  elements_ = own.elements;
  replicated_ = own.replicated;
  shard_ = elements_ / replica().size();
}

FlatShard::Extent FlatShard::extent(int dp, int tp) const {
  Extent extent{0, 0};
  // The largest local size over `tp` pads all of them alike, so that uneven slices still make equal shards.
  for (int rank = 0; rank < tp; ++rank) {
    int64_t end = 0;
    for (const Parameter* parameter : parameters_)
      end += round_up(parameter->layout().local(rank, tp).elements(), kAlignment);
    extent.elements = std::max(extent.elements, end);
  }
  extent.elements = round_up(extent.elements, kAlignment * dp);
  for (const Parameter* parameter : parameters_) {
    if (!parameter->layout().is_sharded_on("tp"))
      extent.replicated += round_up(parameter->layout().elements(), kAlignment);
  }
  return extent;
}

void FlatShard::allocate_values() {
  at::ScalarType dtype = zero_.options.values;
  if (zero_.shards_values()) {
    Window window = replica().allocate(shard_, dtype);
    values_ = window.mine;
    shared_values_ = window.all;
  } else {
    values_ =
        zero_.shards_state() ? replica().allocate(elements_, dtype).mine : at::zeros({elements_}, options_of(dtype));
  }
  storage_ = c10::Storage(c10::Storage::use_byte_size_t(), elements_ * values_.element_size(),
                          at::DataPtr(nullptr, values_.device()), nullptr, false);
  if (!zero_.shards_values()) set_memory(values_.data_ptr());
  for (Parameter* parameter : parameters_) {
    at::Tensor strides_of = at::empty(parameter->local().sizes, at::TensorOptions().dtype(dtype).device(at::kMeta));
    parameter->value_ = at::empty({0}, values_.options())
                            .set_(storage_, parameter->offset_, parameter->local().sizes, strides_of.strides());
    parameter->value_.requires_grad_(trained_);
  }
}

void FlatShard::allocate_gradients() {
  at::ScalarType dtype = zero_.options.master;
  if (zero_.shards_gradients()) {
    owned_gradient_ = at::zeros({shard_}, options_of(dtype));
  } else {
    gradient_ = replica().allocate(elements_, dtype).mine;
    owned_gradient_ = zero_.shards_state() ? part(gradient_) : gradient_;
  }
}

at::Tensor FlatShard::owned_values() const {
  return zero_.shards_values() || !zero_.shards_state() ? values_ : part(values_);
}

at::TensorOptions FlatShard::options_of(at::ScalarType dtype) const {
  return at::TensorOptions().dtype(dtype).device(replica().device());
}

at::Tensor FlatShard::part(const at::Tensor& flat) const { return flat.narrow(0, shard_ * replica().rank(), shard_); }

std::vector<Segment> FlatShard::segments_of(int64_t begin, int64_t length) const {
  std::vector<Segment> segments;
  for (const Parameter* parameter : parameters_) {
    int64_t first = std::max(begin, parameter->offset());
    int64_t last = std::min(begin + length, parameter->offset() + parameter->local().elements());
    if (first < last) segments.push_back({parameter, first - begin, first - parameter->offset(), last - first});
  }
  return segments;
}

int64_t FlatShard::replicated() const {
  if (!zero_.shards_state()) return replicated_;
  return std::clamp<int64_t>(replicated_ - shard_ * replica().rank(), 0, shard_);
}

bool FlatShard::counts_on(const Mesh& mesh, bool replicated_on_tp) const {
  return (zero_.shards_state() || mesh.dp_in_replica().rank() == 0) && (!replicated_on_tp || mesh.tp().rank() == 0);
}

void FlatShard::set_memory(void* memory) {
  storage_.unsafeGetStorageImpl()->set_data_ptr_noswap(at::DataPtr(memory, values_.device()));
}

void FlatShard::fetch() {
  bool travels = zero_.shards_values() && !shared_values_.defined();
  if (empty() || left_out_ || !travels || gathered_.defined()) return;
  gathered_ = at::empty({elements_}, values_.options());
  arriving_ = replica().all_gather(values_, gathered_, {.name = name_, .purpose = Purpose::parameters});
}

void FlatShard::gather() {
  if (empty() || left_out_ || !zero_.shards_values()) return;
  if (shared_values_.defined()) {
    // publish() fenced, and nobody writes before the next optimizer step: no barrier, no copy.
    Call call{.name = name_, .purpose = Purpose::parameters};
    replica().account(call, (elements_ - shard_) * values_.element_size());
    set_memory(shared_values_.data_ptr());
    return;
  }
  fetch();
  arriving_.wait();
  set_memory(gathered_.data_ptr());
}

void FlatShard::release() {
  if (empty() || !zero_.shards_values()) return;
  set_memory(nullptr);
  gathered_ = at::Tensor();
}

void FlatShard::begin_gradients() {
  if (!trained_ || empty() || !zero_.shards_gradients()) return;
  bucket_ = &zero_.buckets.acquire(elements_, zero_.options.master, replica());
  gradient_ = bucket_->memory.narrow(0, 0, elements_);
  forget_gradients();
}

void FlatShard::end_gradients() {
  bool reduces = zero_.shards_gradients() || zero_.last_micro_step;
  if (!trained_ || empty() || !reduces) return;
  for (const Parameter* parameter : parameters_) {
    if (!parameter->has_gradient_) gradient_.narrow(0, parameter->offset(), parameter->local().elements()).zero_();
  }
  bool accumulate = zero_.shards_gradients() && !zero_.first_micro_step;
  Work reduction =
      zero_.exchange->reduce({*this, gradient_, owned_gradient_, accumulate, zero_.last_micro_step});
  if (!zero_.options.overlap) reduction.wait();
  zero_.buckets.give_back(bucket_, std::move(reduction));
  if (!std::exchange(bucket_, nullptr)) return;
  gradient_ = at::Tensor();
}

at::Tensor& FlatShard::gradient() {
  zero_.buckets.settle();
  return owned_gradient_;
}

void FlatShard::forget_gradients() {
  for (const Parameter* parameter : parameters_) parameter->has_gradient_ = false;
}

void FlatShard::publish() {
  if (empty()) return;
  arriving_.wait();
  gathered_ = at::Tensor();
  at::Tensor owned = owned_values();
  if (trained_ && zero_.keeps_master()) owned.copy_(master_);
  if (!zero_.shards_state() || zero_.shards_values()) return;
  replica().all_gather(owned, values_, {.name = name_, .purpose = Purpose::parameters}).wait();
}

void FlatShard::sum_partial_gradients() {
  if (!trained_ || replicated() == 0) return;
  at::Tensor partial = gradient().narrow(0, 0, replicated());
  zero_.mesh.tp().all_reduce(partial, {.name = name_, .purpose = Purpose::gradients}).wait();
}

at::Tensor FlatShard::whole(const at::Tensor& owned) {
  if (owned.numel() == elements_) return owned;
  at::Tensor all = at::empty({elements_}, owned.options());
  replica().all_gather(owned, all, {.name = name_, .purpose = Purpose::control}).wait();
  return all;
}

FlatShard::Reach FlatShard::reach(const at::Tensor& owned) {
  int64_t end = shard_ * (replica().rank() + 1);
  if (owned.numel() == elements_) return {part(owned), owned.narrow(0, end, elements_ - end)};
  // Not the whole memory: a row ends before the next rank's shard does, or the shards are shorter than a row.
  int64_t longest = 0;
  for (const Parameter* parameter : parameters_) longest = std::max(longest, row_of(*parameter));
  int64_t head = std::min(longest, shard_);
  at::Tensor heads = at::empty({head * replica().size()}, owned.options());
  replica().all_gather(owned.narrow(0, 0, head), heads, {.name = name_, .purpose = Purpose::control}).wait();
  int64_t next = head * (replica().rank() + 1);
  return {owned, heads.narrow(0, next, heads.numel() - next)};
}

at::Tensor FlatShard::Rows::values(const Reach& reach) const {
  int64_t here = std::min(length, reach.share.numel() - begin);
  at::Tensor values = reach.share.narrow(0, begin, here);
  if (here < length) values = at::cat({values, reach.following.narrow(0, 0, length - here)});
  return values.view(slice.sizes);
}

std::vector<FlatShard::Rows> FlatShard::rows_to_save() const {
  std::vector<Rows> rows;
  for (const Segment& segment : segments_of(shard_ * replica().rank(), shard_)) {
    const Parameter& parameter = *segment.parameter;
    if (!parameter.layout().is_sharded_on("tp") && zero_.mesh.tp().rank() != 0) continue;
    int64_t row = row_of(parameter);
    // A row that starts in this shard is written whole, though it may end in the next one.
    int64_t first = (segment.begin + row - 1) / row, last = (segment.begin + segment.length + row - 1) / row;
    if (first == last) continue;
    Slice slice = parameter.local();
    slice.offsets[0] += first;
    slice.sizes[0] = last - first;
    rows.push_back(
        {&parameter, slice, parameter.offset() + first * row - shard_ * replica().rank(), (last - first) * row});
  }
  return rows;
}

void FlatShard::read_owned(at::Tensor& owned, TensorReader& reader, const std::string& prefix) const {
  for (const Segment& segment : segments_) {
    const Parameter& parameter = *segment.parameter;
    int64_t row = row_of(parameter);
    int64_t first = segment.begin / row, last = (segment.begin + segment.length + row - 1) / row;
    Slice slice = parameter.local();
    slice.offsets[0] += first;
    slice.sizes[0] = last - first;
    at::Tensor values = reader.read(prefix + parameter.name(), slice).reshape({-1});
    owned.narrow(0, segment.offset, segment.length)
        .copy_(values.narrow(0, segment.begin - first * row, segment.length));
  }
}

}  // namespace echelon
