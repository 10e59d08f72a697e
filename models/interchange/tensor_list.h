// The tensors of an architecture, by name and shape, without building the model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "models/architecture.h"

namespace echelon {

struct NamedShape {
  std::string name;  ///< as class Model names it
  std::vector<int64_t> sizes;
};

/// In the order of the forward pass; exactly the parameters that Model declares.
std::vector<NamedShape> tensors_of(const Architecture& architecture);

/// Elements of all tensors, in floating point: sizes from a file may overflow.
double count_elements(const Architecture& architecture);

/// Whether a model without this tensor could still be a bare one: it belongs to a head or pooler.
bool is_head_tensor(const std::string& name);

}  // namespace echelon
