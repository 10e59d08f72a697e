#include "sharding/exchange.h"

#include <ATen/ATen.h>

namespace echelon {

Work ExactExchange::reduce(const Group& group, const std::string& unit, at::Tensor& full, at::Tensor& owned, bool accumulate) {
  Call call{.name = unit, .purpose = Purpose::gradients, .accumulate = accumulate};
  return owned.is_same(full) ? group.all_reduce(full, call) : group.reduce_scatter(full, owned, call);
}

}  // namespace echelon
