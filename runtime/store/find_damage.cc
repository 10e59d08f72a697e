// A committed checkpoint, verified whole. Read and not mapped: a disk's read error is an error then, and no SIGBUS.
#include <algorithm>
#include <cerrno>
#include <optional>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/store/checkpoint_store.h"

namespace echelon {

namespace {

constexpr size_t most_tensors = 3;

/// One file of a checkpoint, tile by tile.
class TileReader {
 public:
  TileReader(std::string path, const FileRecord& record, bool from_disk)
      : path_(std::move(path)),
        record_(record),
        from_disk_(from_disk),
        file_(open_regular(path_, Error::Kind::storage)) {
    drop();
  }
  ~TileReader() { drop(); }

  int64_t size() const {
    struct stat status;
    if (::fstat(file_.get(), &status) != 0) throw system_error(Error::Kind::storage, path_, "look at");
    return status.st_size;
  }

  /// What is wrong with a tile; "" when it is right.
  std::string fault_of(size_t tile) {
    uint64_t begin = tile * tile_bytes;
    bytes_.resize(std::min<uint64_t>(tile_bytes, record_.size - begin));
    for (size_t at = 0; at < bytes_.size();) {
      ssize_t got = ::pread(file_.get(), bytes_.data() + at, bytes_.size() - at, begin + at);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) throw system_error(Error::Kind::storage, path_, "read");
      if (got == 0) return "was cut short while it was read";
      at += got;
    }
    return hash_bytes(bytes_) == record_.tiles[tile] ? "" : "is damaged";
  }

 private:
  /// Clean pages only: what nobody else uses.
  void drop() const {
    if (from_disk_) ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED);
  }

  std::string path_;
  const FileRecord& record_;
  bool from_disk_;
  Descriptor file_;
  std::vector<std::byte> bytes_;
};

/// Nothing when the file has no header, or one that lies in a damaged tile.
std::optional<SafetensorsHeader> header_of(const std::string& path, const std::map<size_t, std::string>& faults) {
  if (faults.count(0)) return {};
  try {
    MappedFile file = MappedFile::open(path, Error::Kind::storage);
    SafetensorsHeader header = parse_safetensors(file.bytes(), path, Error::Kind::storage);
    // Damage within it, were it of a kind that parses, would name wrong tensors.
    if (faults.begin()->first * tile_bytes < header.data_offset) return {};
    return header;
  } catch (const Error&) {
    return {};
  }
}

std::string tensors_in(const SafetensorsHeader& header, size_t tile) {
  uint64_t begin = tile * tile_bytes, end = begin + tile_bytes;
  std::vector<std::string> names;
  for (const TensorEntry& entry : header.entries) {
    bool is_inside = header.data_offset + entry.begin < end && header.data_offset + entry.end > begin;
    if (is_inside) names.push_back(entry.name);
  }
  size_t others = names.size() - std::min(names.size(), most_tensors);
  names.resize(names.size() - others);
  return fmt::format("{}{}", fmt::join(names, ", "), others > 0 ? fmt::format(" and {} more", others) : "");
}

std::vector<std::string> damage_of(const std::string& path, const FileRecord& record, const VerifyOptions& options) {
  TileReader reader(path, record, options.from_disk);
  if (int64_t size = reader.size(); size != record.size)
    return {fmt::format("{} has {} bytes, not {}", record.name, size, record.size)};
  std::map<size_t, std::string> faults;
  for (size_t tile = 0; tile < record.tiles.size(); ++tile) {
    if (options.given_up && options.given_up()) break;
    if (std::string fault = reader.fault_of(tile); !fault.empty()) faults[tile] = fault;
  }
  std::vector<std::string> damage;
  if (faults.empty()) return damage;
  std::optional<SafetensorsHeader> header = header_of(path, faults);
  for (const auto& [tile, fault] : faults) {
    std::string tensors = header ? tensors_in(*header, tile) : "";
    damage.push_back(fmt::format("{} {}{}", name_of_tile(record, tile), fault,
                                 tensors.empty() ? "" : fmt::format("; it holds {}", tensors)));
  }
  return damage;
}

}  // namespace

std::vector<std::string> find_damage(const Checkpoint& checkpoint, const VerifyOptions& options) {
  std::vector<std::string> damage;
  for (const FileRecord& record : checkpoint.manifest.files) {
    for (std::string& sentence : damage_of(checkpoint.path(record.name), record, options))
      damage.push_back(std::move(sentence));
  }
  return damage;
}

}  // namespace echelon
