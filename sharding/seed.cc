#include "sharding/seed.h"

#include <cmath>
#include <numbers>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "sharding/layout.h"

namespace echelon {

Seed Seed::with(std::string_view name) const {
  uint64_t hash = 0xcbf29ce484222325ull;   // FNV-1a
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  return Seed(Key{mix(key_ ^ mix(hash))});
}

int64_t Seed::integer(uint64_t index, int64_t below) const {
  return static_cast<int64_t>((static_cast<unsigned __int128>(bits(index)) * static_cast<uint64_t>(below)) >> 64);
}

namespace {

// Box and Muller 1958. Two draws an element, so that an element never depends on its neighbour.
double normal(const Seed& seed, uint64_t index) {
  double radius = std::sqrt(-2.0 * std::log(1.0 - seed.uniform(2 * index)));
  return radius * std::cos(2.0 * std::numbers::pi * seed.uniform(2 * index + 1));
}

/// draw(index of the element in the whole tensor) for every element of the slice.
template <class Draw>
at::Tensor drawn(const std::vector<int64_t>& global_sizes, const Slice& slice, const Draw& draw) {
  at::Tensor values = at::empty(slice.sizes, at::kDouble);
  if (values.numel() == 0) return values;
  int64_t inner = slice.sizes.empty() ? 1 : slice.sizes.back();
  int64_t rows = values.numel() / inner;
  double* out = values.data_ptr<double>();
  at::parallel_for(0, rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      uint64_t start = global_index(global_sizes, slice, row);
      for (int64_t i = 0; i < inner; ++i) out[row * inner + i] = draw(start + i);
    }
  });
  return values;
}

}  // namespace

at::Tensor keyed_normal(const Seed& seed, const std::vector<int64_t>& global_sizes, const Slice& slice) {
  return drawn(global_sizes, slice, [&](uint64_t index) { return normal(seed, index); });
}

at::Tensor keyed_uniform(const Seed& seed, const std::vector<int64_t>& global_sizes, const Slice& slice) {
  return drawn(global_sizes, slice, [&](uint64_t index) { return seed.uniform(index); });
}

Permutation::Permutation(const Seed& seed, int64_t size) : seed_(seed), size_(size), half_bits_(1) {
  while ((int64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
}

uint64_t Permutation::scramble(uint64_t index) const {
  uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = index >> half_bits_, right = index & mask;
  for (int round = 0; round < 6; ++round) {
    uint64_t next = left ^ (seed_.with(round).bits(right) & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

int64_t Permutation::operator()(int64_t index) const {
  uint64_t value = static_cast<uint64_t>(index);
  do {
    value = scramble(value);
  } while (value >= static_cast<uint64_t>(size_));
  return static_cast<int64_t>(value);
}

}  // namespace echelon
