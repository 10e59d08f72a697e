#include "models/kernels/norm_kernel.h"

namespace echelon::kernels::ECHELON_ISA_NAME {

namespace {

template <class T>
float mean_of(const T* x, int64_t columns) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < columns; ++c) sum += widen(x[c]);
  return sum / static_cast<float>(columns);
}

template <class T>
float mean_square_of(const T* x, int64_t columns, float mean) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t c = 0; c < columns; ++c) sum += (widen(x[c]) - mean) * (widen(x[c]) - mean);
  return sum / static_cast<float>(columns);
}

template <class T>
void forward(const NormRows<T>& norm, float epsilon, T* y) {
  int64_t columns = norm.columns;
  const T* __restrict weight = norm.weight, * __restrict bias = norm.bias;
  for (int64_t r = 0; r < norm.rows; ++r) {
    const T* __restrict x = norm.x + r * columns;
    T* __restrict to = y + r * columns;
    float mean = bias ? mean_of(x, columns) : 0.0f;
    float scale = 1.0f / __builtin_sqrtf(mean_square_of(x, columns, mean) + epsilon);
    norm.scale[r] = scale;
    if (bias) {
      norm.mean[r] = mean;
      for (int64_t c = 0; c < columns; ++c)
        narrow((widen(x[c]) - mean) * scale * widen(weight[c]) + widen(bias[c]), to[c]);
    } else {
      for (int64_t c = 0; c < columns; ++c) narrow(widen(x[c]) * scale * widen(weight[c]), to[c]);
    }
  }
}

/// Means over a row of dy * weight and of dy * weight * normalised x.
struct RowMeans {
  float gradient, projection;
};

template <class T>
RowMeans row_means(const T* x, const T* weight, const T* dy, int64_t columns, float mean, float scale) {
  float gradient = 0, projection = 0;
#pragma omp simd reduction(+ : gradient, projection)
  for (int64_t c = 0; c < columns; ++c) {
    float g = widen(dy[c]) * widen(weight[c]);
    gradient += g;
    projection += g * ((widen(x[c]) - mean) * scale);
  }
  return {gradient / static_cast<float>(columns), projection / static_cast<float>(columns)};
}

template <class T>
void backward_row(const T* __restrict x, const T* __restrict weight, const T* __restrict dy,
                  const T* __restrict residual, T* __restrict dx, int64_t columns, float mean, float scale,
                  const RowMeans& means) {
  auto gradient = [&](int64_t c) {
    float normalised = (widen(x[c]) - mean) * scale;
    return (widen(dy[c]) * widen(weight[c]) - means.gradient - normalised * means.projection) * scale;
  };
  if (residual) {
    for (int64_t c = 0; c < columns; ++c) narrow(gradient(c) + widen(residual[c]), dx[c]);
  } else {
    for (int64_t c = 0; c < columns; ++c) narrow(gradient(c), dx[c]);
  }
}

template <class T>
void backward(const NormRows<T>& norm, const T* dy, const T* residual, T* dx, float* __restrict dweight,
              float* __restrict dbias) {
  int64_t columns = norm.columns;
  for (int64_t r = 0; r < norm.rows; ++r) {
    const T* __restrict x = norm.x + r * columns, * __restrict of_row = dy + r * columns;
    float mean = norm.bias ? norm.mean[r] : 0.0f, scale = norm.scale[r];
    RowMeans means = row_means(x, norm.weight, of_row, columns, mean, scale);
    if (!norm.bias) means.gradient = 0;
    backward_row(x, norm.weight, of_row, residual ? residual + r * columns : nullptr, dx + r * columns, columns, mean,
                 scale, means);
    for (int64_t c = 0; c < columns; ++c) dweight[c] += widen(of_row[c]) * ((widen(x[c]) - mean) * scale);
    if (!norm.bias) continue;
    for (int64_t c = 0; c < columns; ++c) dbias[c] += widen(of_row[c]);
  }
}

}  // namespace

void norm_forward(const NormRows<float>& norm, float epsilon, float* y) { forward(norm, epsilon, y); }
void norm_forward(const NormRows<Bfloat16>& norm, float epsilon, Bfloat16* y) { forward(norm, epsilon, y); }

void norm_backward(const NormRows<float>& norm, const float* dy, const float* residual, float* dx, float* dweight,
                   float* dbias) {
  backward(norm, dy, residual, dx, dweight, dbias);
}

void norm_backward(const NormRows<Bfloat16>& norm, const Bfloat16* dy, const Bfloat16* residual, Bfloat16* dx,
                   float* dweight, float* dbias) {
  backward(norm, dy, residual, dx, dweight, dbias);
}

}  // namespace echelon::kernels::ECHELON_ISA_NAME
