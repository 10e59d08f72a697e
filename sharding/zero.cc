#include "sharding/zero.h"

#include <ATen/ATen.h>

namespace echelon {

Buckets::Bucket& Buckets::acquire(int64_t elements, at::ScalarType dtype, const Group& group) {
  Bucket* best = nullptr;
  for (const auto& bucket : buckets_) {
    bool fits = bucket->free && bucket->memory.numel() >= elements;
    if (fits && (!best || bucket->memory.numel() < best->memory.numel())) best = bucket.get();
  }
  if (!best) {
    best = buckets_.emplace_back(std::make_unique<Bucket>()).get();
    best->memory = group.allocate(elements, dtype).mine;
  }
  best->free = false;
  return *best;
}

}  // namespace echelon
