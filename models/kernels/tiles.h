// Rows of tensors into tiles for tile_product.h, and back.
#pragma once

#include "models/kernels/tile_product.h"

namespace echelon::kernels::ECHELON_ISA_NAME {
namespace {

ECHELON_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
ECHELON_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
ECHELON_INLINE int64_t rounded_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

/// Rows of `width` elements, `distance` elements apart.
template <class T>
struct Rows {
  T* data;
  int64_t distance, count, width;
};

/// The elements [first, first + kLanes) of a row of `width`, zero behind its end.
template <class T>
ECHELON_INLINE Floats load_up_to(const T* row, int64_t first, int64_t width) {
  if (first + kLanes <= width) return load(row + first);
  T part[kLanes] = {};
  for (int64_t i = first; i < width; ++i) part[i - first] = row[i];
  return load(part);
}

ECHELON_INLINE void zero_rows(float* tile, int64_t distance, int64_t begin, int64_t end) {
  for (int64_t i = begin * distance; i < end * distance; i += kLanes) store(tile + i, Floats{});
}

/// tile [count, distance]: a unit holds neighbours of a row. Zero up to `distance`, and in rows from rows.count on.
template <class T>
void pack_along_rows(Single, const Rows<const T>& rows, float* tile, int64_t distance, int64_t count) {
  for (int64_t r = 0; r < rows.count; ++r) {
    const T* row = rows.data + r * rows.distance;
    for (int64_t i = 0; i < distance; i += kLanes) store(tile + r * distance + i, load_up_to(row, i, rows.width));
  }
  zero_rows(tile, distance, rows.count, count);
}

/// The same, or `packed` [count / elements, distance] with units that hold neighbours of a column, where that differs.
template <class T>
const float* pack_along_columns(Single, const Rows<const T>&, const float* along_rows, float*, int64_t, int64_t) {
  return along_rows;
}

#if defined(__AVX512BF16__)
ECHELON_INLINE Words bits_up_to(const Bfloat16* row, int64_t first, int64_t width) {
  return (Words)load_up_to(row, first, width) >> 16;
}

void pack_along_rows(Pair, const Rows<const Bfloat16>& rows, float* tile, int64_t distance, int64_t count) {
  for (int64_t r = 0; r < rows.count; ++r) {
    const Bfloat16* row = rows.data + r * rows.distance;
    for (int64_t unit = 0; unit < distance; unit += kLanes) {
      int64_t first = 2 * unit, part = rows.width - first;
      float* to = tile + r * distance + unit;
      store(to, Floats{});
      if (part >= 2 * kLanes)
        __builtin_memcpy(to, row + first, sizeof(Floats));
      else if (part > 0)
        __builtin_memcpy(to, row + first, 2 * part);
    }
  }
  zero_rows(tile, distance, rows.count, count);
}

const float* pack_along_columns(Pair, const Rows<const Bfloat16>& rows, const float*, float* packed, int64_t distance,
                                int64_t count) {
  for (int64_t r = 0; r < rows.count; r += 2) {
    const Bfloat16 *even = rows.data + r * rows.distance, *odd = even + rows.distance;
    for (int64_t i = 0; i < distance; i += kLanes) {
      Words upper = r + 1 < rows.count ? bits_up_to(odd, i, rows.width) << 16 : Words{};
      store(packed + r / 2 * distance + i, (Floats)(bits_up_to(even, i, rows.width) | upper));
    }
  }
  zero_rows(packed, distance, (rows.count + 1) / 2, count / 2);
  return packed;
}

/// A unit a lane, of `even` and `odd`.
ECHELON_INLINE Floats zipped(Floats even, Floats odd) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (Floats)_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}
/// The units of `first` and then those of `second`.
ECHELON_INLINE Floats joined(Floats first, Floats second) { return (Floats)_mm512_cvtne2ps_pbh(second, first); }
#endif

/// to[c][r] = from[r][c]; rows and columns are multiples of 4.
void transpose(const float* from, int64_t from_row, int64_t rows, int64_t columns, float* to, int64_t to_row) {
  using Four = float __attribute__((vector_size(16), may_alias));
  using Order = int32_t __attribute__((vector_size(16)));
  for (int64_t r = 0; r < rows; r += 4) {
    for (int64_t c = 0; c < columns; c += 4) {
      const float* in = from + r * from_row + c;
      float* out = to + c * to_row + r;
      Four a = read<Four>(in), b = read<Four>(in + from_row), x = read<Four>(in + 2 * from_row),
           y = read<Four>(in + 3 * from_row);
      Four ab = __builtin_shuffle(a, b, Order{0, 4, 1, 5}), AB = __builtin_shuffle(a, b, Order{2, 6, 3, 7});
      Four xy = __builtin_shuffle(x, y, Order{0, 4, 1, 5}), XY = __builtin_shuffle(x, y, Order{2, 6, 3, 7});
      write(out, __builtin_shuffle(ab, xy, Order{0, 1, 4, 5}));
      write(out + to_row, __builtin_shuffle(ab, xy, Order{2, 3, 6, 7}));
      write(out + 2 * to_row, __builtin_shuffle(AB, XY, Order{0, 1, 4, 5}));
      write(out + 3 * to_row, __builtin_shuffle(AB, XY, Order{2, 3, 6, 7}));
    }
  }
}

/// Writes factor times the tile, rounded once.
template <class T>
void unpack(const float* tile, int64_t distance, float factor, const Rows<T>& rows) {
  for (int64_t r = 0; r < rows.count; ++r) {
    for (int64_t i = 0; i < rows.width; i += kLanes) {
      Floats x = load(tile + r * distance + i) * splat(factor);
      T* to = rows.data + r * rows.distance + i;
      if (i + kLanes <= rows.width) {
        store(to, x);
        continue;
      }
      T part[kLanes];
      store(part, x);
      for (int64_t j = i; j < rows.width; ++j) to[j - i] = part[j - i];
    }
  }
}

}  // namespace
}  // namespace echelon::kernels::ECHELON_ISA_NAME
