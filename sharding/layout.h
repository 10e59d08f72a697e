// Which slice of a tensor this rank holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/mesh.h"

namespace echelon {

/// A hyper-rectangle of a tensor.
struct Slice {
  std::vector<int64_t> offsets, sizes;

  int64_t elements() const;
  bool operator==(const Slice&) const = default;
  static Slice whole(const std::vector<int64_t>& sizes) { return {std::vector<int64_t>(sizes.size(), 0), sizes}; }
};

/// The common part of two slices; its elements() is 0 when they do not meet.
Slice intersect(const Slice& a, const Slice& b);

/// Row-major index in the global tensor of the first element of row `row` (of all dims but the last) of `slice`.
uint64_t global_index(const std::vector<int64_t>& global_sizes, const Slice& slice, int64_t row);

/// How a tensor of shape `sizes` lies on a mesh: each shard splits one dim over one axis into consecutive parts of
/// ceil(size / ranks) (the last may be shorter or empty); on every other axis it is replicated.
///
/// The gradient of a tensor that is replicated on `tp` is a partial sum on each of its ranks.
struct Layout {
  struct Shard {
    int dim;
    std::string axis;
  };

  std::vector<int64_t> sizes;
  std::vector<Shard> shards;

  static Layout replicated(std::vector<int64_t> sizes) { return {std::move(sizes), {}}; }
  static Layout sharded(std::vector<int64_t> sizes, int dim, std::string axis) {
    return {std::move(sizes), {{dim, std::move(axis)}}};
  }

  int64_t elements() const;
  bool is_sharded_on(const std::string& axis) const;
  /// The slice of this rank, or of the rank at `tp_rank` on the tensor parallel axis.
  Slice local(const Mesh& mesh) const { return local(mesh.tp().rank(), mesh.tp().size()); }
  Slice local(int tp_rank, int tp_size) const;
};

}  // namespace echelon
