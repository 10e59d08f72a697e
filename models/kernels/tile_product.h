// Products of small matrices that lie in the nearest cache.
#pragma once

#include "models/kernels/vectors.h"

namespace echelon::kernels::ECHELON_ISA_NAME {
namespace {

// Tiles are made of units of 32 bits, each one or two neighbours along the dimension that is summed over.

/// A unit is a float32.
struct Single {
  static constexpr int kElements = 1;
  ECHELON_INLINE Floats add(Floats sum, Floats left, Floats right) { return fused(left, right, sum); }
};

#if defined(__AVX512BF16__)
/// A unit is two bfloat16; their products are summed in float32.
struct Pair {
  static constexpr int kElements = 2;
  ECHELON_INLINE Floats add(Floats sum, Floats left, Floats right) {
    return _mm512_dpbf16_ps(sum, (__m512bh)left, (__m512bh)right);
  }
};
#endif

enum class Into { set, add, rescale };

/// out[r][c] = sum over s of left[r][s] * right[s][c], by units. `right` and `out` hold neighbouring columns side by
/// side.
struct Product {
  int64_t rows, vectors, steps;  // vectors: of columns
  const float* left;
  int64_t left_row, left_step;
  const float* right;
  int64_t right_step;
  float* out;
  int64_t out_row;
  Into into;
  float factor = 1;                // set: the sum is multiplied by it
  const float* factors = nullptr;  // rescale: what is there is multiplied by these, one a column, and the sum added
};

// As many sums as registers hold, beside a row of `right` and one of `left`.
#if defined(__AVX512F__)
constexpr int kTileRows = 6, kTileVectors = 4;
#elif defined(__AVX2__)
constexpr int kTileRows = 6, kTileVectors = 2;
#else
constexpr int kTileRows = 4, kTileVectors = 2;
#endif

template <class Dot, int rows, int vectors>
void tile_product(const Product& p, int64_t row, int64_t vector) {
  const float *left = p.left + row * p.left_row, *right = p.right + vector * kLanes;
  Floats sums[rows][vectors] = {};
  for (int64_t step = 0; step < p.steps; ++step) {
    Floats row_of_right[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) row_of_right[v] = load(right + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      Floats one = splat(left[r * p.left_row]);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) sums[r][v] = Dot::add(sums[r][v], one, row_of_right[v]);
    }
    left += p.left_step;
    right += p.right_step;
  }
#pragma GCC unroll 8
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) {
      int64_t column = (vector + v) * kLanes;
      float* to = p.out + (row + r) * p.out_row + column;
      Floats sum = sums[r][v];
      if (p.into == Into::set) store(to, sum * splat(p.factor));
      if (p.into == Into::add) store(to, load(to) + sum);
      if (p.into == Into::rescale) store(to, fused(load(to), load(p.factors + column), sum));
    }
  }
}

template <class Dot, int rows, int vectors>
void last_rows(const Product& p, int64_t row, int64_t vector) {
  if constexpr (rows > 0) {
    if (p.rows - row == rows) return tile_product<Dot, rows, vectors>(p, row, vector);
    last_rows<Dot, rows - 1, vectors>(p, row, vector);
  }
}

template <class Dot, int vectors>
void all_rows(const Product& p, int64_t vector) {
  int64_t row = 0;
  for (; row + kTileRows <= p.rows; row += kTileRows) tile_product<Dot, kTileRows, vectors>(p, row, vector);
  last_rows<Dot, kTileRows - 1, vectors>(p, row, vector);
}

template <class Dot, int vectors>
void last_vectors(const Product& p, int64_t vector) {
  if constexpr (vectors > 0) {
    if (p.vectors - vector == vectors) return all_rows<Dot, vectors>(p, vector);
    last_vectors<Dot, vectors - 1>(p, vector);
  }
}

template <class Dot>
void multiply(const Product& p) {
  int64_t vector = 0;
  for (; vector + kTileVectors <= p.vectors; vector += kTileVectors) all_rows<Dot, kTileVectors>(p, vector);
  last_vectors<Dot, kTileVectors - 1>(p, vector);
}

}  // namespace
}  // namespace echelon::kernels::ECHELON_ISA_NAME
