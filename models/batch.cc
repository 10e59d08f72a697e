#include "models/batch.h"

#include <ATen/ATen.h>

namespace echelon {

int64_t Batch::size() const { return at("input_ids").size(0); }
int64_t Batch::length() const { return at("input_ids").size(1); }

}  // namespace echelon
