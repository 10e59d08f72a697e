// How a kernel is declared: one source, compiled once for each instruction set, and a function that calls the right
// one.
//
// A kernel is a source `X_kernel.cc` with a header of its own. Both know pointers, <cstdint>, <cmath>'s C functions and
// intrinsics only: what a library's template leaves in the object file for the linker to pick would run on processors
// that it was not compiled for (tests/house looks for such symbols). The header declares
//
//     ECHELON_KERNEL(scale, (float* x, int64_t count, float factor), (x, count, factor))
//
// inside `namespace echelon`; the source defines
//
//     namespace echelon::kernels::ECHELON_ISA_NAME {
//     void scale(float* x, int64_t count, float factor) { ... }
//     }
//
// and everybody else calls echelon::scale(x, count, factor). Threads are the caller's.
//
// A source `X_kernel.cu` may define the same function in namespace echelon::kernels::gpu, for memory of the GPU.
// It is then called as echelon::gpu::scale(...), goes into the current stream and returns at once. What only GPUs have
// is declared by ECHELON_GPU_KERNEL.
#pragma once

#if defined(ECHELON_ISA_NAME)

#define ECHELON_KERNEL(name, parameters, arguments) \
  namespace kernels::ECHELON_ISA_NAME {             \
  void name parameters;                             \
  }
#define ECHELON_GPU_KERNEL ECHELON_KERNEL

#else

#include "models/kernels/gpu_kernels.h"

// A build without kernels for GPUs links no such function: who calls asks first (models/layers/takes.h).
#define ECHELON_GPU_KERNEL(name, parameters, arguments)      \
  namespace kernels::gpu {                                   \
  void name parameters;                                      \
  }                                                          \
  namespace gpu {                                            \
  inline void name parameters {                              \
    if constexpr (kGpuKernels) kernels::gpu::name arguments; \
  }                                                          \
  }

#if defined(__x86_64__)

#include "models/kernels/isa.h"

#define ECHELON_KERNEL(name, parameters, arguments)  \
  ECHELON_GPU_KERNEL(name, parameters, arguments)    \
  namespace kernels {                                \
  namespace plain {                                  \
  void name parameters;                              \
  }                                                  \
  namespace avx2 {                                   \
  void name parameters;                              \
  }                                                  \
  namespace avx512 {                                 \
  void name parameters;                              \
  }                                                  \
  namespace avx512_bf16 {                            \
  void name parameters;                              \
  }                                                  \
  }                                                  \
  inline void name parameters {                      \
    switch (isa()) {                                 \
      case Isa::plain:                               \
        return kernels::plain::name arguments;       \
      case Isa::avx2:                                \
        return kernels::avx2::name arguments;        \
      case Isa::avx512:                              \
        return kernels::avx512::name arguments;      \
      case Isa::avx512_bf16:                         \
        return kernels::avx512_bf16::name arguments; \
    }                                                \
  }

#else

#define ECHELON_KERNEL(name, parameters, arguments) \
  ECHELON_GPU_KERNEL(name, parameters, arguments)   \
  namespace kernels::plain {                        \
  void name parameters;                             \
  }                                                 \
  inline void name parameters { kernels::plain::name arguments; }

#endif

#endif
