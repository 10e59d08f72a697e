#include "models/kernels/add_rows_kernel.h"

namespace echelon::kernels::ECHELON_ISA_NAME {

namespace {

template <class T>
void add(float* table, const T* rows, const int64_t* ids, const bool* mute, int64_t count, int64_t width, int64_t begin,
         int64_t end) {
  for (int64_t r = 0; r < count; ++r) {
    if (mute && mute[r]) continue;
    float* __restrict to = table + ids[r] * width;
    const T* __restrict from = rows + r * width;
    for (int64_t c = begin; c < end; ++c) to[c] += widen(from[c]);
  }
}

}  // namespace

void add_rows(float* table, const float* rows, const int64_t* ids, const bool* mute, int64_t count, int64_t width,
              int64_t begin, int64_t end) {
  add(table, rows, ids, mute, count, width, begin, end);
}

void add_rows(float* table, const Bfloat16* rows, const int64_t* ids, const bool* mute, int64_t count, int64_t width,
              int64_t begin, int64_t end) {
  add(table, rows, ids, mute, count, width, begin, end);
}

}  // namespace echelon::kernels::ECHELON_ISA_NAME
