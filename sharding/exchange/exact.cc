// Sums without approximation, or rounded to bfloat16 on the wire.
#include <ATen/ATen.h>

#include "cluster/base/registry.h"
#include "sharding/codec.h"
#include "sharding/exchange/exact.pb.h"
#include "sharding/flat_shard.h"

namespace echelon {

namespace {

enum class Among { all_replicas, own_replica };

class ExactSum : public Exchange {
 public:
  ExactSum(const Exact& options, Among among) : bfloat16_(options.wire() == Exact::BF16), among_(among) {}

  bool joins_replicas() const override { return !bfloat16_; }
  std::shared_ptr<const Codec> codec() const override { return bfloat16_ ? Exchange::codec() : nullptr; }

  Work reduce(const Reduction& reduction) override {
    return bfloat16_ && reduction.shard.zero().mesh.dp().size() > 1 ? reduce_rounded(reduction)
                                                                    : reduce_as_it_is(reduction);
  }

  int64_t bytes_sent(const FlatShard& shard, const Placement& placement) const override {
    int64_t ranks = placement.ranks_per_replica(), replicas = placement.replicas,
            meeting = among_ == Among::all_replicas ? replicas : 1;
    int64_t all = placement.tp * shard.extent(static_cast<int>(ranks), placement.tp).elements *
                  (bfloat16_ ? 2 : placement.element_bytes);
    if (placement.stage == 0) return replicas / meeting * 2 * (ranks * meeting - 1) * all;
    return (replicas * (ranks - 1) * placement.reductions() + 2 * (meeting - 1)) * all;
  }

 private:
  static Call call_of(const Reduction& reduction, bool accumulate) {
    return {.name = reduction.shard.name(), .purpose = Purpose::gradients, .accumulate = accumulate};
  }

  static Work reduce(const Group& group, at::Tensor& gradient, at::Tensor& owned, const Call& call) {
    return owned.numel() == gradient.numel() && group.size() > 1 ? group.all_reduce(gradient, call)
                                                                 : group.reduce_scatter(gradient, owned, call);
  }

  Work reduce_as_it_is(const Reduction& reduction) const {
    const Mesh& mesh = reduction.shard.zero().mesh;
    at::Tensor gradient = reduction.gradient, owned = reduction.owned;
    bool joins = mesh.replicas() > 1 && among_ == Among::all_replicas, owns_all = owned.numel() == gradient.numel();
    if (!joins) return reduce(mesh.dp_in_replica(), gradient, owned, call_of(reduction, reduction.accumulate));
    if (owns_all && mesh.dp_in_replica().size() > 1)
      return reduce(mesh.dp(), gradient, owned, call_of(reduction, reduction.accumulate));
    reduce(mesh.dp_in_replica(), gradient, owned, call_of(reduction, reduction.accumulate)).wait();
    // Sums of micro-steps travel between replicas once.
    return reduction.last ? mesh.dp_between_replicas().all_reduce(owned, call_of(reduction, false)) : Work();
  }

  static Work reduce_rounded(const Reduction& reduction) {
    const Group& group = reduction.shard.zero().mesh.dp();
    at::Tensor rounded = reduction.gradient.to(at::kBFloat16), owned = reduction.owned;
    bool owns_all = owned.numel() == rounded.numel();
    at::Tensor sum = owns_all ? rounded : at::empty(owned.sizes(), rounded.options());
    Work work = reduce(group, rounded, sum, call_of(reduction, false));
    return then(std::move(work), [rounded, sum, owned, accumulate = reduction.accumulate] {
      accumulate ? owned.add_(sum) : owned.copy_(sum);
    });
  }

  bool bfloat16_;
  Among among_;
};

}  // namespace

std::unique_ptr<Exchange> exact_exchange() { return std::make_unique<ExactSum>(Exact(), Among::all_replicas); }
std::unique_ptr<Exchange> replica_exchange() { return std::make_unique<ExactSum>(Exact(), Among::own_replica); }

void register_exact(Registry& registry) {
  registry.add<Exchange, Exact>([](const Exact& options, const Exchange::Context&) {
    return std::make_unique<ExactSum>(options, Among::all_replicas);
  });
}

}  // namespace echelon
