#include "sharding/layout.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "cluster/base/error.h"

namespace echelon {

namespace {

int64_t product(const std::vector<int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

int64_t Slice::elements() const { return product(sizes); }
int64_t Layout::elements() const { return product(sizes); }

Slice intersect(const Slice& a, const Slice& b) {
  Slice common;
  for (size_t dim = 0; dim < a.sizes.size(); ++dim) {
    int64_t begin = std::max(a.offsets[dim], b.offsets[dim]);
    int64_t end = std::min(a.offsets[dim] + a.sizes[dim], b.offsets[dim] + b.sizes[dim]);
    common.offsets.push_back(begin);
    common.sizes.push_back(std::max<int64_t>(0, end - begin));
  }
  return common;
}

uint64_t global_index(const std::vector<int64_t>& global_sizes, const Slice& slice, int64_t row) {
  uint64_t index = 0, stride = 1;
  for (int dim = static_cast<int>(global_sizes.size()) - 1; dim >= 0; --dim) {
    int64_t local = 0;
    if (dim + 1 < static_cast<int>(global_sizes.size())) {
      local = row % slice.sizes[dim];
      row /= slice.sizes[dim];
    }
    index += stride * static_cast<uint64_t>(slice.offsets[dim] + local);
    stride *= static_cast<uint64_t>(global_sizes[dim]);
  }
  return index;
}

bool Layout::is_sharded_on(const std::string& axis) const {
  return std::any_of(shards.begin(), shards.end(), [&](const Shard& shard) { return shard.axis == axis; });
}

Slice Layout::local(int tp_rank, int tp_size) const {
  Slice slice = Slice::whole(sizes);
  for (const Shard& shard : shards) {
    if (shard.axis != "tp") throw Error::internal("layout", "unknown axis " + shard.axis);
    int64_t part = (sizes[shard.dim] + tp_size - 1) / tp_size;
    int64_t begin = std::min(sizes[shard.dim], part * tp_rank);
    slice.offsets[shard.dim] = begin;
    slice.sizes[shard.dim] = std::min(sizes[shard.dim], begin + part) - begin;
  }
  return slice;
}

}  // namespace echelon
