// The largest elements with error feedback.
#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "cluster/base/registry.h"
#include "sharding/error_feedback.h"
#include "sharding/exchange/top_k.pb.h"
#include "sharding/flat_shard.h"

namespace echelon {

namespace {

constexpr int64_t kPlaceBytes = 4;

class TopKSum : public ErrorFeedback {
 public:
  explicit TopKSum(const TopK& options)
      : ErrorFeedback(options.between_nodes_only(), options.exact_steps()), options_(options) {
    if (!(options.fraction() > 0 && options.fraction() <= 1)) {
      throw Error::recipe("exchange.fraction", "TopK sends a share of the elements")
          .got(options.fraction())
          .expected("above 0, at most 1");
    }
    if (options.has_count() && options.count() < 1) {
      throw Error::recipe("exchange.count", "TopK sends a number of elements")
          .got(options.count())
          .expected("at least 1");
    }
  }

 protected:
  int64_t approximate_bytes_sent(const FlatShard& shard, const Placement& placement) const override {
    RouteBytes route(shard, placement, between_nodes_only());
    int64_t sent = count_of(route.senders * route.piece) * (kPlaceBytes + placement.element_bytes);
    return route.inside_nodes + route.groups * route.senders * (route.senders - 1) * sent + route.gather_in_nodes;
  }

  void send(const Reduction& reduction, const Route& route, at::Tensor& rest) override {
    at::Tensor pieces = route.pieces(rest), flat = pieces.reshape({-1}), places = largest(flat);
    at::Tensor mine = at::cat({flat.index_select(0, places).view(at::kByte), places.to(at::kInt).view(at::kByte)});
    pieces.copy_(flat.index_fill(0, places, 0).view(pieces.sizes()));
    at::Tensor all = at::empty({route.ranks(), mine.numel()}, mine.options());
    route.group().all_gather(mine, all, {.name = reduction.shard.name(), .purpose = Purpose::gradients}).wait();
    if (route.reaches_all()) {
      at::Tensor sums = at::zeros(pieces.sizes(), rest.options());
      add(all, places.numel(), 0, sums.view(-1));
      route.store_all(sums);
    } else {
      at::Tensor sum = at::zeros({pieces.size(1)}, rest.options());
      add(all, places.numel(), route.group().rank() * sum.numel(), sum);
      route.store(sum);
    }
  }

 private:
  int64_t count_of(int64_t elements) const {
    double share = std::ceil(options_.fraction() * static_cast<double>(elements));
    return std::min(elements, options_.has_count() ? options_.count() : static_cast<int64_t>(share));
  }

  /// Ascending places of the elements that are sent.
  at::Tensor largest(const at::Tensor& rest) const {
    if (rest.numel() > std::numeric_limits<int32_t>::max()) {
      throw Error::recipe("exchange",
                          fmt::format("a Unit of {} elements is beyond the 32-bit places of TopK", rest.numel()));
    }
    at::Tensor places = std::get<1>(rest.abs().topk(count_of(rest.numel()), 0, /*largest=*/true, /*sorted=*/false));
    return std::get<0>(places.sort());
  }

  /// Adds what all ranks sent [ranks, bytes], as far as it lies in `sum`, which begins at place `begin`; in rank order.
  static void add(const at::Tensor& all, int64_t count, int64_t begin, const at::Tensor& sum) {
    int64_t value_bytes = all.size(1) - kPlaceBytes * count;
    for (int64_t rank = 0; rank < all.size(0); ++rank) {
      at::Tensor values = all[rank].narrow(0, 0, value_bytes).clone().view(sum.scalar_type());
      at::Tensor places = all[rank].narrow(0, value_bytes, kPlaceBytes * count).clone().view(at::kInt).sub_(begin);
      at::Tensor inside = places.ge(0).logical_and_(places.lt(sum.numel())).nonzero().view({-1});
      sum.index_add_(0, places.index_select(0, inside), values.index_select(0, inside));
    }
  }

  TopK options_;
};

}  // namespace

void register_top_k(Registry& registry) {
  registry.add<Exchange, TopK>(
      [](const TopK& options, const Exchange::Context&) { return std::make_unique<TopKSum>(options); });
}

}  // namespace echelon
