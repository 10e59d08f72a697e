// Dropout whose mask is a function of keys, not of a stream.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace echelon {

/// An element is dropped if its hash (dropout_hash.h) is below this.
uint32_t dropped_below(double rate);

/// Zeroes elements of `rows` [R, C] (contiguous) with probability `rate` and scales the rest by 1 / (1 - rate). Element
/// (r, c) depends on row_keys[r] (int64 [R], bits of the key) and first_column + c only, on every device. Applied to a
/// gradient it is its own backward.
/// Source: Srivastava et al. 2014; the hash is two rounds of MurmurHash3's finaliser.
at::Tensor keyed_dropout(const at::Tensor& rows, const at::Tensor& row_keys, double rate, int64_t first_column = 0);

}  // namespace echelon
