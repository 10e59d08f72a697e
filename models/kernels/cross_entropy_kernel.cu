#include "models/kernels/cross_entropy_kernel.h"

#include "models/kernels/gpu.cuh"

namespace echelon::kernels::gpu {

namespace {

/// Calls of_pack(column, values[n]) for all elements of a row, wherever it begins: those in front of the first whole
/// pack and behind the last one by one.
template <class T, class OfPack>
__device__ void walk(const T* row, int64_t columns, const OfPack& of_pack) {
  constexpr int N = kPack<T>;
  auto begin = static_cast<int64_t>((16 - reinterpret_cast<uintptr_t>(row) % 16) % 16 / sizeof(T));
  begin = min(begin, columns);
  int64_t end = begin + (columns - begin) / N * N;
  auto one = [&](int64_t c) {
    float value[1] = {widen(row[c])};
    of_pack(c, value);
  };
  for (int64_t c = threadIdx.x; c < begin; c += blockDim.x) one(c);
  for (int64_t c = begin + threadIdx.x * N; c < end; c += blockDim.x * N) {
    float values[N];
    read<N>(row + c, values);
    of_pack(c, values);
  }
  for (int64_t c = end + threadIdx.x; c < columns; c += blockDim.x) one(c);
}

/// Of the rows, one for each block.
template <class T>
struct Rows {
  T* logits;
  int64_t rows, columns;
  const int64_t* targets;
};

template <class T>
__global__ void largest_of_rows(Rows<const T> r, float* largest) {
  float most = -1e30f;
  walk(r.logits + blockIdx.x * r.columns, r.columns, [&]<int N>(int64_t, const float(&v)[N]) {
    for (int i = 0; i < N; ++i) most = v[i] > most ? v[i] : most;
  });
  most = over_block(most, Largest());
  if (threadIdx.x == 0) largest[blockIdx.x] = most;
}

template <class T>
__global__ void sums_of_rows(Rows<const T> r, const float* largest, float* sums, float* of_target) {
  const T* row = r.logits + blockIdx.x * r.columns;
  float most = largest[blockIdx.x], sum = 0;
  walk(row, r.columns, [&]<int N>(int64_t, const float(&v)[N]) {
    for (int i = 0; i < N; ++i) sum += exponential(v[i] - most);
  });
  sum = over_block(sum);
  if (threadIdx.x > 0) return;
  int64_t target = r.targets[blockIdx.x];
  sums[blockIdx.x] = sum;
  of_target[blockIdx.x] = 0 <= target && target < r.columns ? widen(row[target]) - most : 0.0f;
}

template <class T>
__global__ void gradient_of_rows(Rows<T> r, const float* largest, const float* sums) {
  T* row = r.logits + blockIdx.x * r.columns;
  float most = largest[blockIdx.x], scale = 1.0f / sums[blockIdx.x];
  int64_t target = r.targets[blockIdx.x];
  walk(row, r.columns, [&]<int N>(int64_t c, float(&v)[N]) {
    for (int i = 0; i < N; ++i) v[i] = exponential(v[i] - most) * scale - (c + i == target ? 1.0f : 0.0f);
    write<N>(v, row + c);
  });
}

template <class T>
void run_max(const Rows<const T>& r, float* largest) {
  launch("row_max", largest_of_rows<T>, r.rows, threads_for(r.columns / kPack<T>), 0, r, largest);
}
template <class T>
void run_sum(const Rows<const T>& r, const float* largest, float* sums, float* of_target) {
  launch("row_sum", sums_of_rows<T>, r.rows, threads_for(r.columns / kPack<T>), 0, r, largest, sums, of_target);
}
template <class T>
void run_gradient(const Rows<T>& r, const float* largest, const float* sums) {
  launch("row_gradient", gradient_of_rows<T>, r.rows, threads_for(r.columns / kPack<T>), 0, r, largest, sums);
}

}  // namespace

void row_max(const float* logits, int64_t rows, int64_t columns, float* largest) {
  run_max<float>({logits, rows, columns, nullptr}, largest);
}
void row_max(const Bfloat16* logits, int64_t rows, int64_t columns, float* largest) {
  run_max<Bfloat16>({logits, rows, columns, nullptr}, largest);
}

void row_sum(const float* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
             float* sums, float* of_target) {
  run_sum<float>({logits, rows, columns, targets}, largest, sums, of_target);
}
void row_sum(const Bfloat16* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
             float* sums, float* of_target) {
  run_sum<Bfloat16>({logits, rows, columns, targets}, largest, sums, of_target);
}

void row_gradient(float* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                  const float* sums) {
  run_gradient<float>({logits, rows, columns, targets}, largest, sums);
}
void row_gradient(Bfloat16* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                  const float* sums) {
  run_gradient<Bfloat16>({logits, rows, columns, targets}, largest, sums);
}

}  // namespace echelon::kernels::gpu
