#include "sharding/codec.h"

#include <ATen/ATen.h>

#include "sharding/flat_shard.h"

namespace echelon {

at::Tensor Codec::to_elements(const at::Tensor& scales, int64_t elements) const {
  int64_t pieces = scales.size(0);
  return scales.unsqueeze(2).expand({pieces, scales.size(1), block_}).reshape({pieces, -1}).narrow(1, 0, elements);
}

at::Tensor Codec::encode(const at::Tensor& values) const {
  int64_t pieces = values.size(0), elements = values.size(1);
  at::Tensor padded = at::constant_pad_nd(values, {0, blocks(elements) * block_ - elements});
  at::Tensor scales = this->scales(padded.reshape({pieces, -1, block_}), elements).to(at::kFloat).contiguous();
  return at::cat({scales.view(at::kByte), code(values, to_elements(scales, elements))}, 1);
}

at::Tensor Codec::decode(const at::Tensor& encoded, int64_t elements, const at::TensorOptions& options) const {
  int64_t scale_bytes = 4 * blocks(elements);
  at::Tensor scales = encoded.narrow(0, 0, scale_bytes).clone().view(at::kFloat).unsqueeze(0);
  at::Tensor values = decode_code(encoded.narrow(0, scale_bytes, code_bytes(elements)), elements, options);
  return values.mul_(to_elements(scales, elements).squeeze(0));
}

namespace {

/// Every rank's copy of one piece, added up.
at::Tensor sum_of(const Codec& codec, const at::Tensor& copies, int64_t elements, const at::TensorOptions& options) {
  at::Tensor sum = codec.decode(copies[0], elements, options);
  for (int64_t rank = 1; rank < copies.size(0); ++rank) sum.add_(codec.decode(copies[rank], elements, options));
  return sum;
}

/// Whether `ranks` send less when each has the codes of all, `code` bytes a piece, than when owners send their sums.
bool codes_are_less(int64_t ranks, int64_t code, int64_t sum) { return (ranks - 1) * code <= sum; }

void sum_everywhere(const Codec& codec, const at::Tensor& encoded, const Reduction& reduction, const Route& route,
                    const Call& call) {
  int64_t ranks = route.ranks(), n = route.pieces(reduction.gradient).size(1);
  at::Tensor all = at::empty({ranks, ranks, encoded.size(1)}, encoded.options());
  route.group().all_gather(encoded, all, call).wait();
  at::Tensor sums = at::empty({ranks, n}, reduction.owned.options());
  for (int64_t p = 0; p < ranks; ++p) sums[p].copy_(sum_of(codec, all.select(1, p), n, sums.options()));
  route.store_all(sums);
}

}  // namespace

void sum_encoded(const Codec& codec, const at::Tensor& encoded, const Reduction& reduction, const Route& route) {
  Call call{.name = reduction.shard.name(), .purpose = Purpose::gradients};
  int64_t n = reduction.gradient.numel() / reduction.shard.zero().mesh.dp().size();
  int64_t sum_bytes = n * static_cast<int64_t>(reduction.owned.element_size());
  if (route.reaches_all() && codes_are_less(route.ranks(), encoded.size(1), sum_bytes)) {
    return sum_everywhere(codec, encoded, reduction, route, call);
  }
  at::Tensor received = at::empty_like(encoded);
  route.group().all_to_all(encoded, received, call).wait();
  route.store(sum_of(codec, received, n, reduction.owned.options()));
}

int64_t bytes_of_encoded_sum(const Codec& codec, const FlatShard& shard, const Placement& placement,
                             bool between_nodes_only, int64_t reductions) {
  RouteBytes route(shard, placement, between_nodes_only);
  int64_t code = codec.bytes(route.piece), once = route.groups * route.senders * (route.senders - 1) * code;
  bool everywhere = placement.stage == 0 && codes_are_less(route.senders, code, route.piece * placement.element_bytes);
  return route.inside_nodes +
         reductions * (everywhere ? route.senders * once + route.gather_in_nodes : once + route.gather);
}

}  // namespace echelon
