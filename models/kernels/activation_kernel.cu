#include "models/kernels/activation_kernel.h"

#include "models/kernels/activation_functions.h"
#include "models/kernels/gpu.cuh"

namespace echelon::kernels::gpu {

namespace {

/// `up` and `dup` are null where the activation is not gated; forward has no dy and writes to dx.
template <class T>
struct Elements {
  const T *x, *up, *dy;
  T *dx, *dup;
  int64_t count;
};

template <class Function, int N, class T>
__device__ void forward_at(const Elements<T>& e, int64_t i) {
  float x[N], up[N];
  read<N>(e.x + i, x);
  if (e.up) read<N>(e.up + i, up);
  for (int n = 0; n < N; ++n) x[n] = Function::at(x[n]).value * (e.up ? up[n] : 1.0f);
  write<N>(x, e.dx + i);
}

template <class Function, int N, class T>
__device__ void backward_at(const Elements<T>& e, int64_t i) {
  float x[N], up[N], dy[N];
  read<N>(e.x + i, x);
  read<N>(e.dy + i, dy);
  if (e.up) read<N>(e.up + i, up);
  for (int n = 0; n < N; ++n) {
    Point point = Function::at(x[n]);
    x[n] = dy[n] * (e.up ? up[n] : 1.0f) * point.slope;
    up[n] = dy[n] * point.value;
  }
  write<N>(x, e.dx + i);
  if (e.up) write<N>(up, e.dup + i);
}

/// Packs of N, and one by one what is left of them.
template <class Function, int N, class T>
__global__ void walk(Elements<T> e) {
  int64_t whole = e.count / N * N, first = thread_of_grid(), stride = threads_of_grid();
  for (int64_t i = first * N; i < whole; i += stride * N)
    e.dy ? backward_at<Function, N>(e, i) : forward_at<Function, N>(e, i);
  for (int64_t i = whole + first; i < e.count; i += stride)
    e.dy ? backward_at<Function, 1>(e, i) : forward_at<Function, 1>(e, i);
}

template <class Function, class T>
void run(const Elements<T>& e) {
  bool packed = aligned(e.x, e.up, e.dy, e.dx, e.dup);
  launch("activation", packed ? walk<Function, kPack<T>, T> : walk<Function, 1, T>,
         blocks_for(packed ? (e.count + kPack<T> - 1) / kPack<T> : e.count), kMostThreads, 0, e);
}

template <class T>
void choose(Activation activation, const Elements<T>& e) {
  switch (activation) {
    case Activation::gelu:
      return run<Gelu>(e);
    case Activation::gelu_tanh:
      return run<GeluTanh>(e);
    case Activation::silu:
      return run<Silu>(e);
    case Activation::relu:
      return run<Relu>(e);
  }
}

}  // namespace

void activation_forward(Activation activation, const float* x, const float* up, float* y, int64_t count) {
  choose<float>(activation, {x, up, nullptr, y, nullptr, count});
}

void activation_forward(Activation activation, const Bfloat16* x, const Bfloat16* up, Bfloat16* y, int64_t count) {
  choose<Bfloat16>(activation, {x, up, nullptr, y, nullptr, count});
}

void activation_backward(Activation activation, const float* x, const float* up, const float* dy, float* dx, float* dup,
                         int64_t count) {
  choose<float>(activation, {x, up, dy, dx, dup, count});
}

void activation_backward(Activation activation, const Bfloat16* x, const Bfloat16* up, const Bfloat16* dy, Bfloat16* dx,
                         Bfloat16* dup, int64_t count) {
  choose<Bfloat16>(activation, {x, up, dy, dx, dup, count});
}

}  // namespace echelon::kernels::gpu
