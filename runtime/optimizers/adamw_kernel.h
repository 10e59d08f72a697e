// One step of AdamW over contiguous memory.
#pragma once

#include <cstdint>

#include "models/kernels/kernel.h"

namespace echelon {

/// One update's factors, in the precision of the state.
template <class Real>
struct AdamWFactors {
  Real beta1, beta2, epsilon;
  Real keep;             ///< of the weight, behind decoupled decay
  Real step_size;        ///< learning rate over the first moment's bias correction
  Real root_correction;  ///< root of the second moment's bias correction
  Real scale;            ///< on gradients: clipping
};

/// Updates `count` weights, first and second moments in one pass: every element is read once and written once.
/// Source: Loshchilov and Hutter 2019.
ECHELON_KERNEL(adamw_step,
               (float* weight, const float* gradient, float* first, float* second, int64_t count,
                const AdamWFactors<float>& factors),
               (weight, gradient, first, second, count, factors))
ECHELON_KERNEL(adamw_step,
               (double* weight, const double* gradient, double* first, double* second, int64_t count,
                const AdamWFactors<double>& factors),
               (weight, gradient, first, second, count, factors))

}  // namespace echelon
