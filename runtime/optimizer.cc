#include "runtime/optimizer.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "cluster/base/log.h"

namespace echelon {

namespace {

// Small enough to share the work of a tiny Unit, large enough to pay for a thread.
constexpr int64_t kGrain = 32768;

}  // namespace

Owned own(Unit& unit, const Optimizer& optimizer, const std::vector<GroupRule>& rules) {
  Owned owned{&unit, {}, rules};
  for (const std::string& name : optimizer.state_names()) owned.state[name] = at::zeros_like(unit.master());
  return owned;
}

template <class Real>
void Optimizer::step_as(Owned& owned, const Update& update_numbers) const {
  Real* master = owned.unit->master().data_ptr<Real>();
  const Real* gradient = owned.unit->gradient().const_data_ptr<Real>();
  std::vector<Real*> state;
  for (const std::string& name : state_names()) state.push_back(owned.state.at(name).data_ptr<Real>());
  const auto& segments = owned.unit->segments();
  for (size_t i = 0; i < segments.size(); ++i) {
    const GroupRule& rule = owned.rules[i];
    double decay = rule.weight_decay.value_or(segments[i].parameter->is_matrix() ? weight_decay() : 0);
    at::parallel_for(0, segments[i].length, kGrain, [&](int64_t begin, int64_t end) {
      int64_t offset = segments[i].offset + begin;
      Stretch<Real> stretch{master + offset, gradient + offset, state, end - begin,
                    update_numbers.learning_rate * rule.learning_rate_factor, decay};
      for (Real*& tensor : stretch.state) tensor += offset;
      update(stretch, update_numbers);
    });
  }
}

void Optimizer::step(Owned& owned, const Update& update) const {
  EC_CHECK(owned.unit->master().is_cpu(), "optimizers have no kernels for {} yet", owned.unit->master().device().str());
  // Masters are updated in place: no operator of autograd sees it, and the next forward reads the new values.
  if (owned.unit->master().scalar_type() == at::kDouble) {
    step_as<double>(owned, update);
  } else {
    step_as<float>(owned, update);
  }
}

}  // namespace echelon
