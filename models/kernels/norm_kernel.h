// LayerNorm and RMSNorm over rows, forward and backward.
#pragma once

#include <cstdint>

#include "models/kernels/kernel.h"
#include "models/kernels/kernel_math.h"

namespace echelon {

/// What both directions share. LayerNorm has a bias and subtracts the mean, RMSNorm has none and does not.
template <class T>
struct NormRows {
  const T* x;       ///< [rows, columns]
  const T* weight;  ///< [columns]
  const T* bias;    ///< [columns]; null: RMSNorm
  float* mean;      ///< [rows]; LayerNorm only
  float* scale;     ///< [rows]: 1 over the deviation, or over the root mean square
  int64_t rows, columns;
};

/// y = weight * (x - mean) * scale + bias, or weight * x * scale; mean and scale are filled in.
/// Sources: Ba et al. 2016, Zhang and Sennrich 2019.
ECHELON_KERNEL(norm_forward, (const NormRows<float>& norm, float epsilon, float* y), (norm, epsilon, y))
ECHELON_KERNEL(norm_forward, (const NormRows<Bfloat16>& norm, float epsilon, Bfloat16* y), (norm, epsilon, y))

/// dx of the gradient dy, plus `residual` [rows, columns] where that is not null; sums of the gradients of weight and
/// bias over these rows are added to dweight and dbias [columns].
ECHELON_KERNEL(norm_backward,
               (const NormRows<float>& norm, const float* dy, const float* residual, float* dx, float* dweight,
                float* dbias),
               (norm, dy, residual, dx, dweight, dbias))
ECHELON_KERNEL(norm_backward,
               (const NormRows<Bfloat16>& norm, const Bfloat16* dy, const Bfloat16* residual, Bfloat16* dx,
                float* dweight, float* dbias),
               (norm, dy, residual, dx, dweight, dbias))

/// The same on a GPU, where each `rows_per_sum` rows have a row of dweight and dbias [.., columns] of their own.
ECHELON_GPU_KERNEL(norm_backward,
                   (const NormRows<float>& norm, const float* dy, const float* residual, float* dx, float* dweight,
                    float* dbias, int64_t rows_per_sum),
                   (norm, dy, residual, dx, dweight, dbias, rows_per_sum))
ECHELON_GPU_KERNEL(norm_backward,
                   (const NormRows<Bfloat16>& norm, const Bfloat16* dy, const Bfloat16* residual, Bfloat16* dx,
                    float* dweight, float* dbias, int64_t rows_per_sum),
                   (norm, dy, residual, dx, dweight, dbias, rows_per_sum))

}  // namespace echelon
