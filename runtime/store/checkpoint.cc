// One committed checkpoint: opened, and verified as it is read.
#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>

#include <sys/stat.h>

#include "runtime/store/checkpoint_store.h"

namespace echelon {

namespace {

constexpr int64_t manifest_limit_bytes = int64_t{1} << 30;

Error damaged(const std::string& place, const std::string& what) {
  return Error::storage(place, "CKPT_INTEGRITY: " + what);
}

int64_t regular_file_size(const std::string& path) {
  struct stat status;
  if (::lstat(path.c_str(), &status) != 0) throw system_error(Error::Kind::storage, path, "look at");
  if (!S_ISREG(status.st_mode)) throw damaged(path, "is not a regular file");
  return status.st_size;
}

std::string hash_of_tile(std::span<const std::byte> file, size_t tile) {
  uint64_t begin = tile * tile_bytes;
  return hash_bytes(file.subspan(begin, std::min<uint64_t>(tile_bytes, file.size() - begin)));
}

}  // namespace

std::string step_name(int64_t step) { return fmt::format("step-{:08}", step); }

std::optional<int64_t> step_of_name(std::string_view name) {
  if (!name.starts_with("step-")) return {};
  std::string_view digits = name.substr(5);
  int64_t step = 0;
  auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  bool is_whole = parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
  if (!is_whole || step < 0 || step_name(step) != name) return {};
  return step;
}

Checkpoint open_checkpoint(const std::string& folder) {
  std::string manifest_path = join_path(folder, "manifest.json");
  Checkpoint checkpoint;
  checkpoint.folder = folder;
  checkpoint.manifest =
      parse_manifest(read_file(manifest_path, Error::Kind::storage, manifest_limit_bytes), manifest_path);
  checkpoint.step = checkpoint.manifest.step;
  std::optional<int64_t> named = step_of_name(name_of_file(folder));
  if (named && *named != checkpoint.step) {
    throw damaged(folder, "the manifest is of another step").got(checkpoint.step).expected(*named);
  }
  for (const std::string& name : list_folder(folder)) {
    bool is_known = name == "manifest.json" || checkpoint.manifest.find(name);
    if (!is_known) throw damaged(folder, fmt::format("{} is not in the manifest", name));
  }
  for (const FileRecord& record : checkpoint.manifest.files) {
    int64_t size = regular_file_size(checkpoint.path(record.name));
    if (size != record.size) throw damaged(checkpoint.path(record.name), "wrong size").got(size).expected(record.size);
  }
  return checkpoint;
}

struct CheckpointFile::Tiles {
  Tiles(FileRecord record, std::string path)
      : record(std::move(record)), path(std::move(path)), verified(this->record.tiles.size()) {}

  /// Hashes the tiles of [begin, end) that nobody hashed yet. Two threads may both do it: the result is the same.
  void verify(std::span<const std::byte> file, uint64_t begin, uint64_t end) {
    for (size_t tile = begin / tile_bytes; tile * tile_bytes < end; ++tile) {
      if (verified[tile].load(std::memory_order_acquire)) continue;
      if (hash_of_tile(file, tile) != record.tiles[tile])
        throw damaged(path, name_of_tile(record, tile) + " is damaged");
      verified[tile].store(true, std::memory_order_release);
    }
  }

  FileRecord record;
  std::string path;
  std::vector<std::atomic<bool>> verified;
};

CheckpointFile::CheckpointFile() = default;
CheckpointFile::CheckpointFile(CheckpointFile&&) noexcept = default;
CheckpointFile::~CheckpointFile() = default;

CheckpointFile CheckpointFile::open(const Checkpoint& checkpoint, const std::string& name) {
  const FileRecord* record = checkpoint.manifest.find(name);
  if (!record) throw Error::storage(checkpoint.folder, fmt::format("the checkpoint has no file {}", name));
  CheckpointFile file;
  file.tiles_ = std::make_unique<Tiles>(*record, checkpoint.path(name));
  MappedFile mapped = MappedFile::open(file.tiles_->path, Error::Kind::storage);
  if (static_cast<int64_t>(mapped.size()) != record->size) {
    throw damaged(mapped.path(), "wrong size").got(mapped.size()).expected(record->size);
  }
  uint64_t header = 0, size = mapped.size();
  file.tiles_->verify(mapped.bytes(), 0, std::min<uint64_t>(size, sizeof header));
  if (size >= sizeof header) std::memcpy(&header, mapped.data(), sizeof header);
  file.tiles_->verify(mapped.bytes(), 0, header < size ? std::min(size, header + sizeof header) : size);
  file.tensors_ = SafetensorsFile::open(std::move(mapped), Error::Kind::storage);
  return file;
}

const std::byte* CheckpointFile::slice(const TensorEntry& entry, uint64_t begin, uint64_t size) const {
  if (begin > entry.size() || size > entry.size() - begin) {
    throw Error::internal(tiles_->path, fmt::format("slice of \"{}\" is out of range", entry.name));
  }
  uint64_t at = tensors_->data_offset() + entry.begin + begin;
  if (size > 0) tiles_->verify(tensors_->file().bytes(), at, at + size);
  return tensors_->data(entry) + begin;
}

}  // namespace echelon
