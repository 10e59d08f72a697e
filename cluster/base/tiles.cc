#include "cluster/base/tiles.h"

#include <algorithm>

#include <fmt/format.h>
#include <xxhash.h>

#include "cluster/base/files.h"
#include "cluster/base/mapped_pages.h"

namespace echelon {

namespace {

std::span<const std::byte> tile_at(std::span<const std::byte> bytes, uint64_t at) {
  return bytes.subspan(at, std::min<uint64_t>(tile_bytes, bytes.size() - at));
}

}  // namespace

std::string hash_bytes(std::span<const std::byte> bytes) {
  XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::vector<std::string> hash_tiles(std::span<const std::byte> bytes) {
  std::vector<std::string> hashes;
  for (uint64_t at = 0; at < bytes.size(); at += tile_bytes) hashes.push_back(hash_bytes(tile_at(bytes, at)));
  return hashes;
}

std::vector<std::string> hash_tiles(const MappedFile& file) {
  std::vector<std::string> hashes;
  for (uint64_t at = 0; at < file.size(); at += tile_bytes) {
    auto tile = tile_at(file.bytes(), at);
    hashes.push_back(hash_bytes(tile));
    forget_pages(tile.data(), tile.size());
  }
  return hashes;
}

}  // namespace echelon
