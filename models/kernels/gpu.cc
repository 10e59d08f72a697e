#include "models/kernels/gpu.h"

#include <cuda_runtime_api.h>

#include <c10/cuda/CUDAStream.h>

#include "cluster/base/error.h"

namespace echelon {

CUstream_st* gpu_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

void check_launch(const char* kernel) {
  cudaError_t code = cudaGetLastError();
  if (code != cudaSuccess) throw Error::internal(kernel, cudaGetErrorString(code));
}

}  // namespace echelon
