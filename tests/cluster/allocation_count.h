// Counts what this test program allocates: the peak within a stretch of code.
#pragma once

#include <cstdint>
#include <functional>

namespace echelon {

/// The most bytes that `action` held at once, beyond what was held before it.
int64_t peak_bytes(const std::function<void()>& action);

}  // namespace echelon
