// Sums without approximation, or rounded to bfloat16 on the wire.
#include <ATen/ATen.h>

#include "cluster/base/registry.h"
#include "sharding/exchange.h"
#include "sharding/exchange/exact.pb.h"
#include "sharding/flat_shard.h"

namespace echelon {

namespace {

class ExactSum : public Exchange {
 public:
  explicit ExactSum(const Exact& options) : bfloat16_(options.wire() == Exact::BF16) {}

  Work reduce(const Reduction& reduction) override {
    return bfloat16_ && reduction.shard.zero().mesh.dp().size() > 1 ? reduce_rounded(reduction) : reduce_as_it_is(reduction);
  }

  int64_t bytes_sent(const FlatShard& shard, const Placement& placement) const override {
    int64_t once = (placement.dp - 1) * shard.extent(placement.dp, placement.tp).elements;
    int64_t bytes = bfloat16_ ? 2 : placement.element_bytes;
    return placement.tp * once * bytes * (placement.stage == 0 ? 2 : placement.reductions());
  }

 private:
  static Call call_of(const Reduction& reduction, bool accumulate) {
    return {.name = reduction.shard.name(), .purpose = Purpose::gradients, .accumulate = accumulate};
  }

  static Work reduce(const Group& group, at::Tensor& gradient, at::Tensor& owned, const Call& call) {
    return owned.numel() == gradient.numel() && group.size() > 1 ? group.all_reduce(gradient, call)
                                                                 : group.reduce_scatter(gradient, owned, call);
  }

  static Work reduce_as_it_is(const Reduction& reduction) {
    at::Tensor gradient = reduction.gradient, owned = reduction.owned;
    return reduce(reduction.shard.zero().mesh.dp(), gradient, owned, call_of(reduction, reduction.accumulate));
  }

  static Work reduce_rounded(const Reduction& reduction) {
    const Group& group = reduction.shard.zero().mesh.dp();
    at::Tensor rounded = reduction.gradient.to(at::kBFloat16), owned = reduction.owned;
    bool owns_all = owned.numel() == rounded.numel();
    at::Tensor sum = owns_all ? rounded : at::empty(owned.sizes(), rounded.options());
    reduce(group, rounded, sum, call_of(reduction, false)).wait();
    reduction.accumulate ? owned.add_(sum) : owned.copy_(sum);
    return {};
  }

  bool bfloat16_;
};

}  // namespace

std::unique_ptr<Exchange> exact_exchange() { return std::make_unique<ExactSum>(Exact()); }

void register_exact(Registry& registry) {
  registry.add<Exchange, Exact>([](const Exact& options, const Exchange::Context&) { return std::make_unique<ExactSum>(options); });
}

}  // namespace echelon
