// Replicas that train apart and meet every so many steps.
#include <ATen/ATen.h>

#include "cluster/base/registry.h"
#include "sharding/codec.h"
#include "sharding/exchange.h"
#include "sharding/exchange/diloco.pb.h"
#include "sharding/flat_shard.h"

namespace echelon {

namespace {

/// How the replicas' outer gradients are added up.
class OuterSum {
 public:
  OuterSum(const google::protobuf::Any& options, const Exchange::Context& context) {
    if (options.type_url().empty()) return;
    whole_ = context.registry->make<Exchange>(options, context);
    if (whole_->sums_updates()) return;
    codec_ = whole_->codec();
    whole_.reset();
  }

  /// Of what this rank owns; the same bits on every replica.
  at::Tensor operator()(FlatShard& shard, const at::Tensor& mine) const {
    if (whole_) return of_whole(shard, mine);
    const Group& replicas = shard.zero().mesh.dp_between_replicas();
    Call call{.name = shard.name(), .purpose = Purpose::updates};
    at::Tensor sum = mine;
    if (codec_) return of_codes(replicas, mine, call);
    replicas.all_reduce(sum, call).wait();
    return sum;
  }

  /// Of the owned `elements` of `shard`, of all ranks together.
  int64_t bytes_sent(const FlatShard& shard, const Placement& placement, int64_t elements) const {
    if (whole_) return whole_->bytes_sent(shard, placement);
    int64_t groups = int64_t{placement.tp} * placement.ranks_per_replica(), others = placement.replicas - 1;
    return groups * others *
           (codec_ ? placement.replicas * codec_->bytes(elements) : 2 * elements * placement.element_bytes);
  }

  /// Keeps what it leaves out; null: leaves nothing out, or forgets it.
  Exchange* feedback() const { return whole_.get(); }

 private:
  /// Codes are decoded and added in the order of the replicas.
  at::Tensor of_codes(const Group& replicas, const at::Tensor& mine, const Call& call) const {
    at::Tensor encoded = codec_->encode(mine.unsqueeze(0)), sum = at::zeros_like(mine);
    at::Tensor all = at::empty({replicas.size(), encoded.size(1)}, encoded.options());
    replicas.all_gather(encoded, all, call).wait();
    for (int replica = 0; replica < replicas.size(); ++replica)
      sum.add_(codec_->decode(all[replica], sum.numel(), sum.options()));
    return sum;
  }

  /// Matrices lie across the ranks of a replica: each hands in its piece of the flat memory, also where it owns all.
  at::Tensor of_whole(FlatShard& shard, const at::Tensor& mine) const {
    const Group& replica = shard.zero().mesh.dp_in_replica();
    int64_t length = shard.elements() / replica.size(), begin = length * replica.rank();
    at::Tensor flat = at::zeros({shard.elements()}, mine.options()), sum = at::empty_like(mine);
    flat.narrow(0, begin, length).copy_(mine.numel() == length ? mine : mine.narrow(0, begin, length));
    whole_->sum_updates({.shard = shard, .gradient = flat, .owned = sum, .purpose = Purpose::updates});
    return sum;
  }

  std::unique_ptr<Exchange> whole_;     // sums whole tensors
  std::shared_ptr<const Codec> codec_;  // else, null: as they are
};

class LocalUpdates : public Exchange {
 public:
  LocalUpdates(const DiLoCo& options, const Context& context)
      : options_(options),
        steps_(context.steps),
        sum_(options.exchange(), context),
        together_(exact_exchange()),
        apart_(replica_exchange()) {
    if (context.replicas < 2) {
      throw Error::recipe("mesh.replicas", "DiLoCo trains replicas apart, and there is one")
          .remedy("set mesh.replicas to 2 or more");
    }
  }

  bool joins_replicas() const override { return true; }
  void start(int64_t step) override { step_ = step; }
  bool synchronous() const override { return step_ <= options_.synchronous_steps(); }

  Work reduce(const Reduction& reduction) override {
    outer_of(reduction.shard);  // where the replicas start from, before the first update
    return (synchronous() ? *together_ : *apart_).reduce(reduction);
  }

  void updated(Weights& weights) override {
    for (FlatShard* shard : weights.trained()) {
      if (synchronous()) {
        outer_of(*shard).shared.copy_(shard->master());
      } else if (meets()) {
        meet(*shard);
      }
    }
  }

  std::map<std::string, at::Tensor> owned_state(FlatShard& shard) override {
    Outer& outer = outer_of(shard);
    return {{"outer_momentum", outer.momentum}, {"shared", outer.shared}};
  }
  std::map<std::string, at::Tensor> summands(FlatShard& shard) override {
    return sum_.feedback() ? sum_.feedback()->summands(shard) : std::map<std::string, at::Tensor>();
  }
  bool summands_are_copied_on_tp() const override { return true; }
  std::map<std::string, at::Tensor> warm_start(FlatShard& shard) override {
    return sum_.feedback() ? sum_.feedback()->warm_start(shard) : std::map<std::string, at::Tensor>();
  }

  int64_t bytes_sent(const FlatShard& shard, const Placement& placement) const override {
    return (synchronous() ? *together_ : *apart_).bytes_sent(shard, placement);
  }
  int64_t update_bytes_sent(const FlatShard& shard, const Placement& placement) const override {
    return meets() ? sum_.bytes_sent(shard, placement, owned_elements(shard, placement)) : 0;
  }
  int64_t bytes_kept(const FlatShard& shard, const Placement& placement) const override {
    int64_t left_out = sum_.feedback() ? sum_.feedback()->bytes_kept(shard, placement) : 0;
    return 2 * owned_elements(shard, placement) * placement.element_bytes + left_out;
  }

 private:
  /// Shaped like the master; the same in every replica.
  struct Outer {
    at::Tensor shared, momentum;  // masters at the last meeting; the outer step's momentum
  };

  bool meets() const {
    int64_t apart = step_ - options_.synchronous_steps();
    return apart > 0 && (apart % options_.inner_steps() == 0 || step_ == steps_);
  }

  Outer& outer_of(FlatShard& shard) {
    Outer& outer = outer_[&shard];
    if (!outer.shared.defined()) outer = {shard.master().clone(), at::zeros_like(shard.master())};
    return outer;
  }

  void meet(FlatShard& shard) {
    Outer& outer = outer_of(shard);
    at::Tensor gradient = sum_(shard, outer.shared - shard.master()).div_(shard.zero().mesh.replicas());
    double momentum = options_.outer_momentum();
    outer.momentum.mul_(momentum).add_(gradient);
    outer.shared.sub_(gradient.add_(outer.momentum, momentum), options_.outer_learning_rate());
    shard.master().copy_(outer.shared);
  }

  static int64_t owned_elements(const FlatShard& shard, const Placement& placement) {
    int64_t ranks = placement.ranks_per_replica(), all = shard.extent(static_cast<int>(ranks), placement.tp).elements;
    return placement.stage >= 1 ? all / ranks : all;
  }

  DiLoCo options_;
  int64_t steps_, step_ = 0;
  OuterSum sum_;
  std::unique_ptr<Exchange> together_, apart_;
  std::map<const FlatShard*, Outer> outer_;
};

}  // namespace

void register_diloco(Registry& registry) {
  registry.add<Exchange, DiLoCo>([](const DiLoCo& options, const Exchange::Context& context) {
    return std::make_unique<LocalUpdates>(options, context);
  });
}

}  // namespace echelon
