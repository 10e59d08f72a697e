// Activations that are cheaper to compute again than to keep.
#pragma once

#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Storage.h>

namespace echelon {

/// What a layer's operators have saved of one forward and that its backward computes again: its memory is given back
/// behind the layer's forward, and filled with the same bits before the layer's backward, in the order of discard().
/// Source: Korthikanti et al. 2022 (selective activation recomputation).
class Discarded {
 public:
  /// `again` computes `tensor`, which has memory of its own, a second time, from what is kept anyway and without
  /// gradients.
  void discard(const at::Tensor& tensor, std::function<at::Tensor()> again);
  /// Gives the memory back. The layer's output, which must not be among what is discarded; its backward is the first of
  /// the layer.
  at::Tensor until_backward(const at::Tensor& output) &&;

  void fill();

 private:
  struct Entry {
    c10::Storage storage;
    std::function<at::Tensor()> again;
  };
  std::vector<Entry> entries_;
};

}  // namespace echelon
