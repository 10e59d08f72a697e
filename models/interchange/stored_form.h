// From our tensors to those that stand in a checkpoint: renamed, transposed, put together.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/interchange/family.h"

namespace echelon {

class StoredForm {
 public:
  StoredForm(const Family& family, const Architecture& architecture) : family_(family), architecture_(architecture) {}

  /// Where one of our tensors goes in a checkpoint of this very model: without the base prefix when it is bare, with a
  /// second copy of what is tied in the family and not here.
  std::vector<TensorPlace> places(const std::string& tensor) const;

  /// The stored tensor, contiguous, when `values` was the last part of it that was missing; else undefined.
  at::Tensor put(const TensorPlace& place, const at::Tensor& values);

 private:
  struct Fused {
    at::Tensor values;
    int parts = 0;
  };

  const Family& family_;
  const Architecture& architecture_;
  std::map<std::string, Fused> fused_;
};

}  // namespace echelon
