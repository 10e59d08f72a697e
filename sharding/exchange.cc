#include "sharding/exchange.h"

#include <ATen/ATen.h>

#include "cluster/base/error.h"

namespace echelon {

Work ExactExchange::reduce(const Group& group, const std::string& unit, at::Tensor& full, at::Tensor& owned, bool accumulate) {
  Call call{.name = unit, .purpose = Purpose::gradients, .accumulate = accumulate};
  if (owned.numel() != full.numel()) return group.reduce_scatter(full, owned, call);
  if (!owned.is_same(full) || accumulate) throw Error::internal(unit, "an unsharded gradient is reduced in place");
  return group.all_reduce(full, call);
}

}  // namespace echelon
