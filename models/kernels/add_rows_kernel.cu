#include "models/kernels/add_rows_kernel.h"

#include "models/kernels/gpu.cuh"

namespace echelon::kernels::gpu {

namespace {

/// The first place of sorted `ids` behind `place` where another id stands.
__device__ int64_t end_of_run(const int64_t* ids, int64_t place, int64_t count) {
  int64_t id = ids[place], end = count;
  while (place < end) {
    int64_t middle = place + (end - place) / 2;
    if (ids[middle] == id)
      place = middle + 1;
    else
      end = middle;
  }
  return end;
}

/// Blocks stand for places of `ids` and parts of the columns; those in whose place a new id begins add all of its rows,
/// one after the other.
template <class T>
__global__ void add(float* table, const T* rows, SortedIds sorted, int64_t width, int64_t parts) {
  int64_t place = blockIdx.x / parts, column = blockIdx.x % parts * blockDim.x + threadIdx.x;
  if (column >= width || (place > 0 && sorted.ids[place] == sorted.ids[place - 1])) return;
  float* to = table + sorted.ids[place] * width + column;
  float sum = *to;
  int64_t end = end_of_run(sorted.ids, place, sorted.count);
#pragma unroll 4
  for (; place < end; ++place) {
    int64_t row = sorted.order[place];
    if (!sorted.mute || !sorted.mute[row]) sum += widen(rows[row * width + column]);
  }
  *to = sum;
}

template <class T>
void run(float* table, const T* rows, const SortedIds& sorted, int64_t width) {
  int threads = threads_for(width);
  int64_t parts = (width + threads - 1) / threads;
  launch("add_rows", add<T>, sorted.count * parts, threads, 0, table, rows, sorted, width, parts);
}

}  // namespace

void add_sorted_rows(float* table, const float* rows, const SortedIds& sorted, int64_t width) {
  run(table, rows, sorted, width);
}
void add_sorted_rows(float* table, const Bfloat16* rows, const SortedIds& sorted, int64_t width) {
  run(table, rows, sorted, width);
}

}  // namespace echelon::kernels::gpu
