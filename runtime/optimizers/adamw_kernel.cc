#include "runtime/optimizers/adamw_kernel.h"

namespace echelon::kernels::ECHELON_ISA_NAME {

namespace {

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }

template <class Real>
inline __attribute__((always_inline)) void step(Real* __restrict weight, const Real* __restrict gradient,
                                                Real* __restrict first, Real* __restrict second, int64_t count,
                                                const AdamWFactors<Real>& f) {
  for (int64_t i = 0; i < count; ++i) {
    Real scaled = gradient[i] * f.scale;
    first[i] += (scaled - first[i]) * (1 - f.beta1);
    second[i] = f.beta2 * second[i] + (1 - f.beta2) * scaled * scaled;
    weight[i] = weight[i] * f.keep - f.step_size * first[i] / (root(second[i]) / f.root_correction + f.epsilon);
  }
}

}  // namespace

void adamw_step(float* weight, const float* gradient, float* first, float* second, int64_t count,
                const AdamWFactors<float>& factors) {
  step(weight, gradient, first, second, count, factors);
}

void adamw_step(double* weight, const double* gradient, double* first, double* second, int64_t count,
                const AdamWFactors<double>& factors) {
  step(weight, gradient, first, second, count, factors);
}

}  // namespace echelon::kernels::ECHELON_ISA_NAME
