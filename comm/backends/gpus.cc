#include "comm/backends/gpus.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "cluster/base/error.h"

namespace echelon {

int visible_gpus() {
  int gpus = 0;
  return cudaGetDeviceCount(&gpus) == cudaSuccess ? gpus : 0;
}

void load_torch_cuda() {
  if (dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    throw Error::recipe("GPU", dlerror()).remedy("install a CUDA build of the torch wheel, or use backend mpi");
  }
}

}  // namespace echelon
