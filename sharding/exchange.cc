#include "sharding/exchange.h"

#include <ATen/ATen.h>

#include "cluster/base/error.h"
#include "sharding/codec.h"
#include "sharding/flat_shard.h"

namespace echelon {

std::shared_ptr<const Codec> Exchange::codec() const {
  throw Error::recipe("exchange.exchange", "it sends gradients only")
      .remedy("use Exact in the gradients' own dtype, Int8 or PowerSgd");
}

void Exchange::sum_updates(const Reduction& reduction) {
  throw Error::internal(reduction.shard.name(), "this exchange sums gradients only");
}

void zero_padding(const FlatShard& shard, const at::Tensor& flat) {
  int64_t end = 0;
  for (const Parameter* parameter : shard.parameters()) {
    flat.narrow(0, end, parameter->offset() - end).zero_();
    end = parameter->offset() + parameter->local().elements();
  }
  flat.narrow(0, end, flat.numel() - end).zero_();
}

}  // namespace echelon
