// Dropout by keys, on a GPU.
#pragma once

#include <cstdint>

#include "models/kernels/kernel.h"
#include "models/kernels/kernel_math.h"

namespace echelon {

struct DropoutRows {
  const int64_t* row_keys;  ///< [rows], bits of keyed_dropout()'s keys
  int64_t rows, columns;
  uint32_t first_column, dropped_below;
  double kept_factor;
};

/// y [rows, columns]: 0 where x is dropped, else x times the factor.
ECHELON_GPU_KERNEL(dropout_rows, (const DropoutRows& dropout, const float* x, float* y), (dropout, x, y))
ECHELON_GPU_KERNEL(dropout_rows, (const DropoutRows& dropout, const Bfloat16* x, Bfloat16* y), (dropout, x, y))
ECHELON_GPU_KERNEL(dropout_rows, (const DropoutRows& dropout, const double* x, double* y), (dropout, x, y))

}  // namespace echelon
