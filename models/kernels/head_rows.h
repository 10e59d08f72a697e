// Tensors whose tokens' heads lie in rows.
#pragma once

#include <cstdint>

namespace echelon {

/// A tensor [batch, heads, tokens, width] whose rows of `width` elements are contiguous; distances in elements.
template <class T>
struct HeadRows {
  T* data;
  int64_t batch, head, token;
};

}  // namespace echelon
