// Memory of mapped files.
#pragma once

#include <cstddef>

namespace echelon {

/// Gives pages of a mapped file back to the kernel: once read, they count as memory of this process. They can be read
/// again.
void forget_pages(const std::byte* data, size_t size);

}  // namespace echelon
