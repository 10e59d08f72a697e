// Collectives with gradients.
#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

#include "comm/group.h"

namespace echelon {

// x [rows, …] stands for the rows of a matrix that is whole on every rank; its shards hold ceil(rows / size) rows each,
// the last ones padded with zero rows. All four are each other's transpose: gradients are exact sums.

/// Whole rows from shards. Backward: reduce-scatter (sum). Result [rows, …].
at::Tensor gather_rows(const at::Tensor& shard, int64_t rows, const Group& group, const std::string& name);
/// Shard of the sum over ranks of partial rows. Backward: all-gather.
at::Tensor reduce_scatter_rows(const at::Tensor& partial, const Group& group, const std::string& name);
/// Shard of rows that are whole and equal on every rank. Backward: all-gather.
at::Tensor scatter_rows(const at::Tensor& whole, const Group& group, const std::string& name);
/// Whole rows from shards, for a use that computes the same on every rank. Backward: this rank's slice of the gradient.
at::Tensor gather_rows_replicated(const at::Tensor& shard, int64_t rows, const Group& group, const std::string& name);

/// Rows of all ranks of `group` in rank order, for losses that look at other samples. Backward: reduce-scatter (sum).
at::Tensor gather_with_gradient(const at::Tensor& mine, const Group& group, const std::string& name);

}  // namespace echelon
