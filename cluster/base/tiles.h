// Hashes of tiles: a file is hashed in pieces of 4 MiB, so that reading a slice verifies only what it touches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace echelon {

class MappedFile;

inline constexpr uint64_t tile_bytes = 4 << 20;

/// XXH3-128 of the bytes, 32 hexadecimal digits.
std::string hash_bytes(std::span<const std::byte> bytes);

/// One hash per tile, the last tile as long as it is; none for an empty file.
std::vector<std::string> hash_tiles(std::span<const std::byte> bytes);
/// The same, of a file whose pages are given back on the way.
std::vector<std::string> hash_tiles(const MappedFile& file);

}  // namespace echelon
