// Work shared among threads so that its bits do not depend on their number.
#pragma once

#include <algorithm>
#include <cstdint>

#include <ATen/Parallel.h>

namespace echelon {

/// Calls run(begin, end) for every block of `block` indices of [0, count), on the threads of this process. The blocks
/// are always the same: where a vector ends and single elements begin, and what is summed before what, is then always
/// the same.
template <class Run>
void for_blocks(int64_t count, int64_t block, const Run& run) {
  at::parallel_for(0, (count + block - 1) / block, 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) run(i * block, std::min(count, (i + 1) * block));
  });
}

}  // namespace echelon
