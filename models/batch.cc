#include "models/batch.h"

#include <ATen/ATen.h>

namespace echelon {

Batch Batch::on(at::Device device) const {
  Batch moved = *this;
  for (auto& [name, tensor] : moved.tensors) tensor = tensor.to(device);
  return moved;
}

int64_t Batch::size() const { return at("input_ids").size(0); }
int64_t Batch::length() const { return at("input_ids").size(1); }

}  // namespace echelon
