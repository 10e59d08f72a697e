// Tensors [B, H, T, d] that kernels read and write as rows of tokens.
#pragma once

#include <ATen/ATen.h>

#include "models/kernels/head_rows.h"
#include "models/layers/takes.h"

namespace echelon {

/// x [B, H, T, d], copied where the elements of a row are not neighbours.
inline at::Tensor with_whole_rows(const at::Tensor& x) {
  return x.size(3) < 2 || x.stride(3) == 1 ? x : x.contiguous();
}

/// Empty [B, T, H, d] for `like` [B, H, T, d].
inline at::Tensor empty_rows(const at::Tensor& like) {
  return at::empty({like.size(0), like.size(2), like.size(1), like.size(3)}, like.options());
}

/// Rows of x [B, H, T, d].
template <class T>
HeadRows<T> head_rows(const at::Tensor& x) {
  return {static_cast<T*>(const_cast<void*>(x.const_data_ptr())), x.stride(0), x.stride(1), x.stride(2)};
}

}  // namespace echelon
