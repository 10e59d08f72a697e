#include "runtime/optimizers/square_sum_kernel.h"

#include "models/kernels/gpu.cuh"

namespace echelon::kernels::gpu {

namespace {

template <class Real>
__global__ void sums_of(const Real* x, int64_t count, double* sums) {
  double sum = 0;
  for (int64_t i = thread_of_grid(); i < count; i += threads_of_grid())
    sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  sum = over_block(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

}  // namespace

void square_sums(const float* x, int64_t count, double* sums) {
  launch("square_sums", sums_of<float>, kSquareSums, kMostThreads, 0, x, count, sums);
}
void square_sums(const double* x, int64_t count, double* sums) {
  launch("square_sums", sums_of<double>, kSquareSums, kMostThreads, 0, x, count, sums);
}

}  // namespace echelon::kernels::gpu
