// What this process has used.
#pragma once

#include <cstdint>

namespace echelon {

/// The largest resident set so far (VmHWM), bytes; 0 where the system does not tell.
int64_t peak_memory_bytes();

}  // namespace echelon
