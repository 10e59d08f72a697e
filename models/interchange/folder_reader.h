// Values of named tensors from a model folder, slice by slice.
#pragma once

#include <map>
#include <string>

#include "models/interchange/model_folder.h"
#include "sharding/weights.h"

namespace echelon {

/// One of our tensors in a file.
struct StoredTensor {
  const TensorEntry* entry = nullptr;
  TensorPlace place;
  std::vector<int64_t> sizes;  ///< ours
};

/// Copies nothing but the bytes of the slice that is asked for: rows in one piece, columns row by row; what is stored
/// transposed or fused is cut out where it lies and turned.
class FolderReader : public TensorReader {
 public:
  FolderReader(ModelFolder folder, std::map<std::string, StoredTensor> tensors)
      : folder_(std::move(folder)), tensors_(std::move(tensors)) {}
  bool has(const std::string& name) const override { return tensors_.contains(name); }
  at::Tensor read(const std::string& name, const Slice& slice) override;

 private:
  ModelFolder folder_;
  std::map<std::string, StoredTensor> tensors_;
};

/// The torch type of a weight's dtype. Errors: Error::input naming the tensor, for what is no floating point type of
/// weights.
at::ScalarType weight_type(const TensorEntry& entry, const std::string& place);

}  // namespace echelon
