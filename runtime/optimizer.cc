#include "runtime/optimizer.h"

#include <ATen/ATen.h>

#include "models/kernels/gpu_kernels.h"
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

void visit_state(Owned& owned, const std::function<void(const std::string& name, const at::Tensor& flat)>& visit) {
  visit("", owned.shard->master());
  for (const auto& [name, flat] : owned.state) visit("." + name, flat);
}

/// The flat tensors of one shard, where they are updated.
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
  bool on_gpu = memory.master.is_cuda();
  for (size_t i = 0; i < segments.size(); ++i) {
    const GroupRule& rule = owned.rules[i];
    double decay = rule.weight_decay.value_or(segments[i].parameter->is_matrix() ? weight_decay() : 0);
    int64_t block = on_gpu ? std::max<int64_t>(1, segments[i].length) : kBlock;
    for_blocks(segments[i].length, block, [&](int64_t begin, int64_t end) {
      int64_t offset = segments[i].offset + begin;
      Stretch<Real> stretch{master + offset,
                            gradient + offset,
                            state,
                            end - begin,
                            update_numbers.learning_rate * rule.learning_rate_factor,
                            decay,
                            on_gpu};
      for (Real*& tensor : stretch.state) tensor += offset;
      update(stretch, update_numbers);
    });
  }
}

void Optimizer::step(Owned& owned, const Update& update) const {
  // Masters are updated in place: no operator of autograd sees it, and the next forward reads the new values. Without a
  // kernel, memory of a GPU is brought here and back: right, and slow.
  at::Tensor& there = owned.shard->master();
  bool in_place = there.is_cpu() || (kGpuKernels && updates_on_gpu());
  auto taken = [&](const at::Tensor& x) { return in_place ? x : x.cpu(); };
  Memory memory{taken(there), taken(owned.shard->gradient()), {}};
  for (const std::string& name : state_names()) memory.state.push_back(taken(owned.state.at(name)));
  if (there.scalar_type() == at::kDouble) {
    step_as<double>(owned, memory, update);
  } else {
    step_as<float>(owned, memory, update);
  }
  if (in_place) return;
  there.copy_(memory.master);
  for (size_t i = 0; i < memory.state.size(); ++i) owned.state.at(state_names()[i]).copy_(memory.state[i]);
}

}  // namespace echelon
