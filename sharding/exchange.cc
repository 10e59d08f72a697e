#include "sharding/exchange.h"

#include <ATen/ATen.h>

#include "sharding/flat_shard.h"

namespace echelon {

void zero_padding(const FlatShard& shard, const at::Tensor& flat) {
  int64_t end = 0;
  for (const Parameter* parameter : shard.parameters()) {
    flat.narrow(0, end, parameter->offset() - end).zero_();
    end = parameter->offset() + parameter->local().elements();
  }
  flat.narrow(0, end, flat.numel() - end).zero_();
}

}  // namespace echelon
