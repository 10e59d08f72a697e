// Which tensors kernels take: that depends on type and device only, so that a run stays on one path.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/kernels/gpu_kernels.h"

namespace echelon {

inline bool has_kernel_type(const at::Tensor& x) {
  return x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16;
}

/// Kernels of the processor.
inline bool cpu_takes(const at::Tensor& x) { return x.is_cpu() && has_kernel_type(x); }

/// Kernels of the GPU that holds x, where this build has any.
inline bool gpu_takes(const at::Tensor& x) { return kGpuKernels && x.is_cuda() && has_kernel_type(x); }

/// Kernels that there are for both.
inline bool kernels_take(const at::Tensor& x) { return cpu_takes(x) || gpu_takes(x); }

}  // namespace echelon
