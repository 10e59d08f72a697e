#include "runtime/checkpoint/snapshot.h"

#include <cstring>

#include <ATen/ATen.h>

#include "cluster/base/error.h"
#include "cluster/base/log.h"
#include "cluster/base/text.h"

namespace echelon {

void Snapshot::reserve(int64_t bytes) {
  if (memory_.defined() && memory_.numel() >= bytes) return;
  memory_ = at::Tensor();
  try {
    memory_ = at::empty({bytes}, at::kByte);
    std::memset(memory_.mutable_data_ptr(), 0, static_cast<size_t>(bytes));
  } catch (const c10::Error&) {
    throw Error::memory("checkpoint", fmt::format("no room for a copy of {}", human_bytes(bytes)))
        .remedy("set checkpoint.background=false: training then waits while a checkpoint is written");
  }
}

void Snapshot::take(Trainer& trainer, ShardPlan plan) {
  plan_ = std::move(plan);
  auto* place = memory_.mutable_data_ptr<uint8_t>();
  size_t next = 0;
  visit_planned(trainer, [&](const std::string& name, const at::Tensor& values) {
    const TensorEntry& entry = plan_.tensors.at(next++);
    EC_CHECK(entry.name == name, "planned {}, got {}", entry.name, name);
    at::Tensor copy = at::from_blob(place, values.sizes(), entry.dtype == DType::F64 ? at::kDouble : at::kFloat);
    copy.copy_(values);
    place += copy.nbytes();
  });
}

void Snapshot::visit(
    const std::function<void(const std::string& name, const std::byte* bytes, size_t size)>& write) const {
  const auto* place = static_cast<const std::byte*>(memory_.const_data_ptr());
  for (const TensorEntry& entry : plan_.tensors) {
    size_t size = tensor_bytes(entry.dtype, entry.shape);
    write(entry.name, place, size);
    place += size;
  }
}

}  // namespace echelon
