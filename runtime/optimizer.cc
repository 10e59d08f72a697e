#include "runtime/optimizer.h"

#include <ATen/ATen.h>

#include "models/kernels/parallel.h"

namespace echelon {

namespace {

// Small enough to share the work of a tiny shard, large enough to pay for a thread.
constexpr int64_t kBlock = 32768;

}  // namespace

Owned own(FlatShard& shard, const Optimizer& optimizer, const std::vector<GroupRule>& rules) {
  Owned owned{&shard, {}, rules};
  for (const std::string& name : optimizer.state_names()) owned.state[name] = at::zeros_like(shard.master());
  return owned;
}

/// The flat tensors of one shard, on this processor.
struct Optimizer::Memory {
  at::Tensor master, gradient;
  std::vector<at::Tensor> state;
};

template <class Real>
void Optimizer::step_as(const Owned& owned, const Memory& memory, const Update& update_numbers) const {
  Real* master = memory.master.data_ptr<Real>();
  const Real* gradient = memory.gradient.const_data_ptr<Real>();
  std::vector<Real*> state;
  for (const at::Tensor& tensor : memory.state) state.push_back(tensor.data_ptr<Real>());
  const auto& segments = owned.shard->segments();
  for (size_t i = 0; i < segments.size(); ++i) {
    const GroupRule& rule = owned.rules[i];
    double decay = rule.weight_decay.value_or(segments[i].parameter->is_matrix() ? weight_decay() : 0);
    for_blocks(segments[i].length, kBlock, [&](int64_t begin, int64_t end) {
      int64_t offset = segments[i].offset + begin;
      Stretch<Real> stretch{master + offset,
                            gradient + offset,
                            state,
                            end - begin,
                            update_numbers.learning_rate * rule.learning_rate_factor,
                            decay};
      for (Real*& tensor : stretch.state) tensor += offset;
      update(stretch, update_numbers);
    });
  }
}

void Optimizer::step(Owned& owned, const Update& update) const {
  // Masters are updated in place: no operator of autograd sees it, and the next forward reads the new values. Memory of
  // a GPU is brought here and back: right, slow, and waiting for a kernel.
  at::Tensor& there = owned.shard->master();
  Memory memory{there.cpu(), owned.shard->gradient().cpu(), {}};
  for (const std::string& name : state_names()) memory.state.push_back(owned.state.at(name).cpu());
  if (there.scalar_type() == at::kDouble) {
    step_as<double>(owned, memory, update);
  } else {
    step_as<float>(owned, memory, update);
  }
  if (there.is_cpu()) return;
  there.copy_(memory.master);
  for (size_t i = 0; i < memory.state.size(); ++i) owned.state.at(state_names()[i]).copy_(memory.state[i]);
}

}  // namespace echelon
