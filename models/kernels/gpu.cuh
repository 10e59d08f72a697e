// What sources of kernels for GPUs share: accesses of 16 bytes, sums over a block of threads, launches.
#pragma once

#include <cstdint>

#include "models/kernels/gpu.h"
#include "models/kernels/kernel_math.h"

namespace echelon::kernels::gpu {

constexpr int kWarp = 32, kMostThreads = 256;

__device__ __forceinline__ double widen(double x) { return x; }
__device__ __forceinline__ void narrow(double x, double& to) { to = x; }

/// What a T is computed in.
template <class T>
struct WideOf {
  using Type = float;
};
template <>
struct WideOf<double> {
  using Type = double;
};
template <class T>
using Wide = typename WideOf<T>::Type;

/// Elements of one access of 16 bytes.
template <class T>
constexpr int kPack = 16 / sizeof(T);

/// N neighbours, moved at once.
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
  T at[N];
};

template <int N, class T>
__device__ __forceinline__ void read(const T* from, Wide<T> (&to)[N]) {
  Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; ++i) to[i] = widen(pack.at[i]);
}

template <int N, class T>
__device__ __forceinline__ void write(const Wide<T> (&from)[N], T* to) {
  Pack<T, N> pack;
#pragma unroll
  for (int i = 0; i < N; ++i) narrow(from[i], pack.at[i]);
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

/// Whether packs may begin at all of these addresses; null is none.
template <class... T>
bool aligned(const T*... at) {
  return ((reinterpret_cast<uintptr_t>(at) % 16 == 0) && ...);
}

struct Add {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Largest {
  __device__ float operator()(float a, float b) const { return b > a ? b : a; }
};

/// x of all threads of the block, combined in an order that is always the same; every thread gets the same bits. The
/// block is of whole warps.
template <class T, class Combine = Add>
__device__ T over_block(T x, Combine combine = {}) {
  __shared__ T of_warps[kMostThreads / kWarp];
  for (int distance = kWarp / 2; distance > 0; distance /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, distance));
  __syncthreads();  // the result before this one has been read
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  T all = of_warps[0];
  for (int warp = 1; warp < blockDim.x / kWarp; ++warp) all = combine(all, of_warps[warp]);
  return all;
}

/// Threads of a block that shares `items` among them.
inline int threads_for(int64_t items) {
  int64_t warps = (items + kWarp - 1) / kWarp;
  return static_cast<int>(warps < 1 ? kWarp : warps * kWarp < kMostThreads ? warps * kWarp : kMostThreads);
}

/// Blocks whose threads walk over `items` in strides: enough to fill a GPU.
inline int64_t blocks_for(int64_t items) {
  int64_t blocks = (items + kMostThreads - 1) / kMostThreads, most = 4096;
  return blocks < most ? blocks : most;
}

__device__ __forceinline__ int64_t thread_of_grid() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t threads_of_grid() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads, int64_t shared_bytes,
            const Arguments&... arguments) {
  if (blocks == 0) return;
  kernel<<<static_cast<unsigned>(blocks), threads, static_cast<size_t>(shared_bytes), gpu_stream()>>>(arguments...);
  check_launch(name);
}

}  // namespace echelon::kernels::gpu
