// Keyed randomness: every draw is a pure function of what it is for, never of who draws it or when.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

namespace echelon {

struct Slice;

/// A key for draws, made by adding names and numbers: `Seed(run).with("dropout").with(step).with(sample)`. Ranks,
/// micro-batches and the order of calls are never part of it, so any layout and a recompute draw the same values.
class Seed {
 public:
  explicit Seed(int64_t run) : key_(mix(static_cast<uint64_t>(run) + 0x9e3779b97f4a7c15ull)) {}

  Seed with(int64_t number) const {
    return Seed(Key{mix(key_ ^ mix(static_cast<uint64_t>(number) + 0xd1b54a32d192ed03ull))});
  }
  Seed with(std::string_view name) const;

  uint64_t key() const { return key_; }
  /// 64 random bits for the element at `index`.
  uint64_t bits(uint64_t index) const { return mix(key_ + index * 0x9e3779b97f4a7c15ull); }
  /// Uniform in [0, 1).
  double uniform(uint64_t index) const { return static_cast<double>(bits(index) >> 11) * 0x1.0p-53; }
  /// Uniform in [0, below); the bias of at most below / 2^64 is accepted.
  int64_t integer(uint64_t index, int64_t below) const;

  /// Finaliser of SplitMix64. Source: Steele, Lea and Flood 2014.
  static uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
  }

 private:
  struct Key {
    uint64_t value;
  };
  explicit Seed(Key key) : key_(key.value) {}
  uint64_t key_;
};

/// Standard normal values of the part `slice` of a tensor of shape `global_sizes`, float64; element i of the whole
/// tensor (row-major) is the same whatever slice it is drawn in.
at::Tensor keyed_normal(const Seed& seed, const std::vector<int64_t>& global_sizes, const Slice& slice);

/// The same, uniform in [0, 1).
at::Tensor keyed_uniform(const Seed& seed, const std::vector<int64_t>& global_sizes, const Slice& slice);

/// A permutation of 0 … size - 1 that needs no memory. Source: cycle walking over a Feistel network (Black and Rogaway
/// 2002).
class Permutation {
 public:
  Permutation(const Seed& seed, int64_t size);
  int64_t operator()(int64_t index) const;

 private:
  uint64_t scramble(uint64_t index) const;

  Seed seed_;
  int64_t size_;
  int half_bits_;
};

}  // namespace echelon
