#include "runtime/optimizers/adamw_kernel.h"

#include "models/kernels/gpu.cuh"

namespace echelon::kernels::gpu {

namespace {

template <class Real>
struct Moments {
  Real *weight, *first, *second;
  const Real* gradient;
  int64_t count;
};

template <int N, class Real>
__device__ void step_at(const Moments<Real>& m, const AdamWFactors<Real>& f, int64_t i) {
  Real weight[N], gradient[N], first[N], second[N];
  read<N>(m.weight + i, weight);
  read<N>(m.gradient + i, gradient);
  read<N>(m.first + i, first);
  read<N>(m.second + i, second);
  for (int n = 0; n < N; ++n) {
    Real scaled = gradient[n] * f.scale;
    first[n] += (scaled - first[n]) * (1 - f.beta1);
    second[n] = f.beta2 * second[n] + (1 - f.beta2) * scaled * scaled;
    weight[n] = weight[n] * f.keep - f.step_size * first[n] / (sqrt(second[n]) / f.root_correction + f.epsilon);
  }
  write<N>(weight, m.weight + i);
  write<N>(first, m.first + i);
  write<N>(second, m.second + i);
}

template <int N, class Real>
__global__ void step(Moments<Real> m, AdamWFactors<Real> f) {
  int64_t whole = m.count / N * N, thread = thread_of_grid(), stride = threads_of_grid();
  for (int64_t i = thread * N; i < whole; i += stride * N) step_at<N>(m, f, i);
  for (int64_t i = whole + thread; i < m.count; i += stride) step_at<1>(m, f, i);
}

template <class Real>
void run(const Moments<Real>& m, const AdamWFactors<Real>& factors) {
  constexpr int N = kPack<Real>;
  bool packed = aligned(m.weight, m.first, m.second, m.gradient);
  launch("adamw_step", packed ? step<N, Real> : step<1, Real>, blocks_for(packed ? (m.count + N - 1) / N : m.count),
         kMostThreads, 0, m, factors);
}

}  // namespace

void adamw_step(float* weight, const float* gradient, float* first, float* second, int64_t count,
                const AdamWFactors<float>& factors) {
  run<float>({weight, first, second, gradient, count}, factors);
}

void adamw_step(double* weight, const double* gradient, double* first, double* second, int64_t count,
                const AdamWFactors<double>& factors) {
  run<double>({weight, first, second, gradient, count}, factors);
}

}  // namespace echelon::kernels::gpu
