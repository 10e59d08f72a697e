#include "models/kernels/norm_kernel.h"

#include "models/kernels/gpu.cuh"

namespace echelon::kernels::gpu {

namespace {

/// Calls of_pack(column, values[N]) for every N neighbours of a row, in this thread's turn.
template <int N, class T, class OfPack>
__device__ void walk(const T* row, int64_t columns, const OfPack& of_pack) {
  for (int64_t c = threadIdx.x * N; c < columns; c += blockDim.x * N) {
    float values[N];
    read<N>(row + c, values);
    of_pack(c, values);
  }
}

template <int N, class T>
__device__ float mean_of(const T* x, int64_t columns) {
  float sum = 0;
  walk<N>(x, columns, [&](int64_t, const float(&v)[N]) {
    for (int i = 0; i < N; ++i) sum += v[i];
  });
  return over_block(sum) / static_cast<float>(columns);
}

template <int N, class T>
__device__ float mean_square_of(const T* x, int64_t columns, float mean) {
  float sum = 0;
  walk<N>(x, columns, [&](int64_t, const float(&v)[N]) {
    for (int i = 0; i < N; ++i) sum += (v[i] - mean) * (v[i] - mean);
  });
  return over_block(sum) / static_cast<float>(columns);
}

/// A block for each row.
template <int N, class T>
__global__ void forward(NormRows<T> norm, float epsilon, T* y) {
  int64_t row = blockIdx.x, columns = norm.columns;
  const T* x = norm.x + row * columns;
  float mean = norm.bias ? mean_of<N>(x, columns) : 0.0f;
  float scale = 1.0f / sqrtf(mean_square_of<N>(x, columns, mean) + epsilon);
  if (threadIdx.x == 0) {
    norm.scale[row] = scale;
    if (norm.bias) norm.mean[row] = mean;
  }
  walk<N>(x, columns, [&](int64_t c, float(&v)[N]) {
    float weight[N], bias[N] = {};
    read<N>(norm.weight + c, weight);
    if (norm.bias) read<N>(norm.bias + c, bias);
    for (int i = 0; i < N; ++i) v[i] = (v[i] - mean) * scale * weight[i] + bias[i];
    write<N>(v, y + row * columns + c);
  });
}

template <class T>
struct Backward {
  NormRows<T> norm;
  const T *dy, *residual;
  T* dx;
  float *dweight, *dbias;  // [blocks, columns]
  int64_t rows_per_sum;
};

/// Means over a row of dy * weight (LayerNorm only) and of dy * weight * normalised x.
struct RowMeans {
  float gradient, projection;
};

template <int N, class T>
__device__ RowMeans row_means(const Backward<T>& b, int64_t row, float mean, float scale) {
  int64_t columns = b.norm.columns;
  float gradient = 0, projection = 0;
  walk<N>(b.norm.x + row * columns, columns, [&](int64_t c, const float(&x)[N]) {
    float dy[N], weight[N];
    read<N>(b.dy + row * columns + c, dy);
    read<N>(b.norm.weight + c, weight);
    for (int i = 0; i < N; ++i) {
      gradient += dy[i] * weight[i];
      projection += dy[i] * weight[i] * ((x[i] - mean) * scale);
    }
  });
  auto width = static_cast<float>(columns);
  return {b.norm.bias ? over_block(gradient) / width : 0.0f, over_block(projection) / width};
}

/// dx of a row; its share of the sums is added to those of this thread's columns.
template <int N, class T>
__device__ void backward_row(const Backward<T>& b, int64_t row, float* dweight, float* dbias) {
  int64_t columns = b.norm.columns, begin = row * columns;
  float mean = b.norm.bias ? b.norm.mean[row] : 0.0f, scale = b.norm.scale[row];
  RowMeans means = row_means<N>(b, row, mean, scale);
  walk<N>(b.norm.x + begin, columns, [&](int64_t c, float(&x)[N]) {
    float dy[N], weight[N], residual[N] = {};
    read<N>(b.dy + begin + c, dy);
    read<N>(b.norm.weight + c, weight);
    if (b.residual) read<N>(b.residual + begin + c, residual);
    for (int i = 0; i < N; ++i) {
      float normalised = (x[i] - mean) * scale;
      x[i] = (dy[i] * weight[i] - means.gradient - normalised * means.projection) * scale + residual[i];
      dweight[c + i] += dy[i] * normalised;
      if (b.norm.bias) dbias[c + i] += dy[i];
    }
    write<N>(x, b.dx + begin + c);
  });
}

/// A block for each `rows_per_sum` rows, whose sums stand in shared memory where that is large enough. Only one thread
/// reads and writes the sums of a column.
template <int N, class T>
__global__ void backward(Backward<T> b, bool shares) {
  extern __shared__ float shared[];
  int64_t columns = b.norm.columns, place = blockIdx.x * columns;
  int64_t first = blockIdx.x * b.rows_per_sum, end = min(first + b.rows_per_sum, b.norm.rows);
  float *dweight = shares ? shared : b.dweight + place, *dbias = shares ? shared + columns : b.dbias + place;
  for (int64_t i = threadIdx.x; shares && i < 2 * columns; i += blockDim.x) shared[i] = 0;
  __syncthreads();
  for (int64_t row = first; row < end; ++row) backward_row<N>(b, row, dweight, dbias);
  __syncthreads();
  for (int64_t c = threadIdx.x; shares && c < columns; c += blockDim.x) {
    b.dweight[place + c] += dweight[c];
    b.dbias[place + c] += dbias[c];
  }
}

constexpr int64_t kSharedBytes = 47 << 10;  // of 48 KiB that a block gets unasked; over_block() takes some of them

template <class T>
void run_forward(const NormRows<T>& norm, float epsilon, T* y) {
  bool packed = aligned(norm.x, norm.weight, norm.bias, y) && norm.columns % kPack<T> == 0;
  launch("norm_forward", packed ? forward<kPack<T>, T> : forward<1, T>, norm.rows,
         threads_for(norm.columns / (packed ? kPack<T> : 1)), 0, norm, epsilon, y);
}

template <class T>
void run_backward(const Backward<T>& b) {
  bool packed = aligned(b.norm.x, b.norm.weight, b.dy, b.residual, b.dx) && b.norm.columns % kPack<T> == 0;
  int64_t bytes = 2 * b.norm.columns * static_cast<int64_t>(sizeof(float));
  bool shares = bytes <= kSharedBytes;
  launch("norm_backward", packed ? backward<kPack<T>, T> : backward<1, T>,
         (b.norm.rows + b.rows_per_sum - 1) / b.rows_per_sum, threads_for(b.norm.columns / (packed ? kPack<T> : 1)),
         shares ? bytes : 0, b, shares);
}

}  // namespace

void norm_forward(const NormRows<float>& norm, float epsilon, float* y) { run_forward(norm, epsilon, y); }
void norm_forward(const NormRows<Bfloat16>& norm, float epsilon, Bfloat16* y) { run_forward(norm, epsilon, y); }

void norm_backward(const NormRows<float>& norm, const float* dy, const float* residual, float* dx, float* dweight,
                   float* dbias, int64_t rows_per_sum) {
  run_backward<float>({norm, dy, residual, dx, dweight, dbias, rows_per_sum});
}

void norm_backward(const NormRows<Bfloat16>& norm, const Bfloat16* dy, const Bfloat16* residual, Bfloat16* dx,
                   float* dweight, float* dbias, int64_t rows_per_sum) {
  run_backward<Bfloat16>({norm, dy, residual, dx, dweight, dbias, rows_per_sum});
}

}  // namespace echelon::kernels::gpu
