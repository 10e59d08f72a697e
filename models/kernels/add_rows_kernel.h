// The gradient of a lookup.
#pragma once

#include <cstdint>

#include "models/kernels/kernel.h"
#include "models/kernels/kernel_math.h"

namespace echelon {

/// Adds rows [count, width] to rows `ids` [count] of a table [.., width], in their order, columns [begin, end) only:
/// threads that share the columns among them give the same bits whatever their number. Rows whose `mute` is set are
/// left out; null: none.
ECHELON_KERNEL(add_rows,
               (float* table, const float* rows, const int64_t* ids, const bool* mute, int64_t count, int64_t width,
                int64_t begin, int64_t end),
               (table, rows, ids, mute, count, width, begin, end))
ECHELON_KERNEL(add_rows,
               (float* table, const Bfloat16* rows, const int64_t* ids, const bool* mute, int64_t count, int64_t width,
                int64_t begin, int64_t end),
               (table, rows, ids, mute, count, width, begin, end))

/// Ids in rising order, equal ones in that of their rows.
struct SortedIds {
  const int64_t *ids, *order;  ///< [count]; ids[i] is that of row order[i]
  const bool* mute;            ///< [count], of rows; null: none
  int64_t count;
};

/// The same on a GPU, all columns: the rows of an id are added one after the other, which needs them sorted.
ECHELON_GPU_KERNEL(add_sorted_rows, (float* table, const float* rows, const SortedIds& sorted, int64_t width),
                   (table, rows, sorted, width))
ECHELON_GPU_KERNEL(add_sorted_rows, (float* table, const Bfloat16* rows, const SortedIds& sorted, int64_t width),
                   (table, rows, sorted, width))

}  // namespace echelon
