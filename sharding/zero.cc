#include "sharding/zero.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace echelon {

Buckets::Bucket* Buckets::smallest_free(int64_t elements) const {
  Bucket* best = nullptr;
  for (const auto& bucket : buckets_) {
    bool fits = bucket->use == Use::none && bucket->memory.numel() >= elements;
    if (fits && (!best || bucket->memory.numel() < best->memory.numel())) best = bucket.get();
  }
  return best;
}

int64_t Buckets::outside_backward() const {
  return std::count_if(buckets_.begin(), buckets_.end(),
                       [](const auto& bucket) { return bucket->use != Use::backward; });
}

Buckets::Bucket& Buckets::acquire(int64_t elements, at::ScalarType dtype, const Group& group) {
  Bucket* best = smallest_free(elements);
  // One is on its way while another is written. Units whose backward encloses this one's have theirs besides.
  while (!best && !leaving_.empty() && outside_backward() > 1) {
    settle_first();
    best = smallest_free(elements);
  }
  if (!best) {
    best = buckets_.emplace_back(std::make_unique<Bucket>()).get();
    best->memory = group.allocate(elements, dtype).mine;
  }
  best->use = Use::backward;
  return *best;
}

void Buckets::give_back(Bucket* bucket, Work reduction) {
  if (bucket) bucket->use = Use::reduction;
  leaving_.push_back({bucket, std::move(reduction)});
  if (leaving_.back().reduction.done()) settle();
}

void Buckets::settle() {
  while (!leaving_.empty()) settle_first();
}

void Buckets::settle_first() {
  leaving_.front().reduction.wait();
  if (leaving_.front().bucket) leaving_.front().bucket->use = Use::none;
  leaving_.pop_front();
}

}  // namespace echelon
