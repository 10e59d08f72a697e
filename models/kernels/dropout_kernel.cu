#include "models/kernels/dropout_kernel.h"

#include "models/kernels/dropout_hash.h"
#include "models/kernels/gpu.cuh"

namespace echelon::kernels::gpu {

namespace {

template <int N, class T>
__global__ void drop(DropoutRows d, const T* x, T* y) {
  int64_t packs = d.columns / N;
  for (int64_t i = thread_of_grid(); i < d.rows * packs; i += threads_of_grid()) {
    auto key = static_cast<uint64_t>(d.row_keys[i / packs]);
    auto low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
    uint32_t column = d.first_column + static_cast<uint32_t>(i % packs * N);
    Wide<T> values[N];
    read<N>(x + i * N, values);
#pragma unroll
    for (int n = 0; n < N; ++n)
      values[n] = dropout_hash(low, high, column + n) < d.dropped_below
                      ? Wide<T>(0)
                      : values[n] * static_cast<Wide<T>>(d.kept_factor);
    write<N>(values, y + i * N);
  }
}

template <class T>
void run(const DropoutRows& dropout, const T* x, T* y) {
  bool packed = aligned(x, y) && dropout.columns % kPack<T> == 0;
  int64_t items = dropout.rows * dropout.columns / (packed ? kPack<T> : 1);
  launch("dropout_rows", packed ? drop<kPack<T>, T> : drop<1, T>, blocks_for(items), kMostThreads, 0, dropout, x, y);
}

}  // namespace

void dropout_rows(const DropoutRows& dropout, const float* x, float* y) { run(dropout, x, y); }
void dropout_rows(const DropoutRows& dropout, const Bfloat16* x, Bfloat16* y) { run(dropout, x, y); }
void dropout_rows(const DropoutRows& dropout, const double* x, double* y) { run(dropout, x, y); }

}  // namespace echelon::kernels::gpu
