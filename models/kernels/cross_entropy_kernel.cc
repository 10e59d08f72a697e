#include "models/kernels/cross_entropy_kernel.h"

namespace echelon::kernels::ECHELON_ISA_NAME {

namespace {

constexpr int64_t kBlock = 2048;

template <class T>
void largest_of_rows(const T* logits, int64_t rows, int64_t columns, float* largest) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = logits + r * columns;
    float most = -1e30f;
#pragma omp simd reduction(max : most)
    for (int64_t c = 0; c < columns; ++c) most = widen(row[c]) > most ? widen(row[c]) : most;
    largest[r] = most;
  }
}

template <class T>
void sums_of_rows(const T* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                  float* sums, float* of_target) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* row = logits + r * columns;
    float most = largest[r], sum = 0;
    // By blocks, so that rounding does not grow with the vocabulary.
    for (int64_t begin = 0; begin < columns; begin += kBlock) {
      int64_t end = begin + kBlock < columns ? begin + kBlock : columns;
      float of_block = 0;
#pragma omp simd reduction(+ : of_block)
      for (int64_t c = begin; c < end; ++c) of_block += exponential(widen(row[c]) - most);
      sum += of_block;
    }
    sums[r] = sum;
    of_target[r] = 0 <= targets[r] && targets[r] < columns ? widen(row[targets[r]]) - most : 0.0f;
  }
}

template <class T>
void gradient_of_rows(T* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                      const float* sums) {
  for (int64_t r = 0; r < rows; ++r) {
    T* row = logits + r * columns;
    float most = largest[r], scale = 1.0f / sums[r];
    bool here = 0 <= targets[r] && targets[r] < columns;
    float of_target = here ? exponential(widen(row[targets[r]]) - most) * scale - 1.0f : 0.0f;
    for (int64_t c = 0; c < columns; ++c) narrow(exponential(widen(row[c]) - most) * scale, row[c]);
    if (here) narrow(of_target, row[targets[r]]);
  }
}

}  // namespace

void row_max(const float* logits, int64_t rows, int64_t columns, float* largest) {
  largest_of_rows(logits, rows, columns, largest);
}

void row_max(const Bfloat16* logits, int64_t rows, int64_t columns, float* largest) {
  largest_of_rows(logits, rows, columns, largest);
}

void row_sum(const float* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
             float* sums, float* of_target) {
  sums_of_rows(logits, rows, columns, targets, largest, sums, of_target);
}

void row_sum(const Bfloat16* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
             float* sums, float* of_target) {
  sums_of_rows(logits, rows, columns, targets, largest, sums, of_target);
}

void row_gradient(float* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                  const float* sums) {
  gradient_of_rows(logits, rows, columns, targets, largest, sums);
}

void row_gradient(Bfloat16* logits, int64_t rows, int64_t columns, const int64_t* targets, const float* largest,
                  const float* sums) {
  gradient_of_rows(logits, rows, columns, targets, largest, sums);
}

}  // namespace echelon::kernels::ECHELON_ISA_NAME
