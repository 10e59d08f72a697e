// CRC-32C (Castagnoli), as TensorBoard's records use it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace echelon {

/// With the processor's own instruction where it has one.
uint32_t crc32c(std::string_view bytes);
/// From a table; the reference for the above.
uint32_t crc32c_table(std::string_view bytes);
/// Rotated and shifted, so that a checksum of bytes that hold checksums stays a good one.
uint32_t masked_crc32c(std::string_view bytes);

}  // namespace echelon
