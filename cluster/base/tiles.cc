#include "cluster/base/tiles.h"

#include <algorithm>

#include <fmt/format.h>
#include <xxhash.h>

namespace echelon {

std::string hash_bytes(std::span<const std::byte> bytes) {
  XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::vector<std::string> hash_tiles(std::span<const std::byte> bytes) {
  std::vector<std::string> hashes;
  for (uint64_t at = 0; at < bytes.size(); at += tile_bytes) {
    hashes.push_back(hash_bytes(bytes.subspan(at, std::min<uint64_t>(tile_bytes, bytes.size() - at))));
  }
  return hashes;
}

}  // namespace echelon
