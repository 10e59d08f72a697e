#include "runtime/optimizers/square_sum_kernel.h"

namespace echelon::kernels::ECHELON_ISA_NAME {

namespace {

template <class Real>
double sum_of(const Real* x, int64_t count) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace

void square_sum(const float* x, int64_t count, double* sum) { *sum = sum_of(x, count); }
void square_sum(const double* x, int64_t count, double* sum) { *sum = sum_of(x, count); }

}  // namespace echelon::kernels::ECHELON_ISA_NAME
