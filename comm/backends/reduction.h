// Sums over ranks in rank order: the one arithmetic of all CPU backends, so that they agree to the bit.
#pragma once

#include <cstdint>

#include <c10/core/ScalarType.h>

#include "comm/group.h"

namespace echelon {

/// out[i] = sources[0][i] + sources[1][i] + … (or the largest, the smallest; NaN wins), in that order; bfloat16 is
/// summed in float32 and rounded once. With `accumulate`, what `out` holds is added last. `out` may be one of the
/// sources. Dtypes: float64, float32, bfloat16, int64 (sums wrap around).
void reduce(void* out, const void* const* sources, int count_of_sources, int64_t elements, at::ScalarType dtype,
            Reduce op, bool accumulate);

}  // namespace echelon
