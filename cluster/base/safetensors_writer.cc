#include <algorithm>
#include <atomic>
#include <cerrno>
#include <unordered_map>

#include <fcntl.h>
#include <unistd.h>

#include "cluster/base/safetensors_header.h"
#include "cluster/base/tiles.h"

namespace echelon {

struct SafetensorsWriter::State {
  std::unordered_map<std::string, size_t> index;
  std::vector<std::atomic<uint64_t>> written;
};

namespace {

void allocate_extents(const Descriptor& file, uint64_t size, const std::string& path, Error::Kind kind) {
  if (::fallocate(file.get(), 0, 0, static_cast<off_t>(size)) == 0) return;
  bool unsupported = errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL;
  if (!unsupported || ::ftruncate(file.get(), static_cast<off_t>(size)) != 0) {
    throw system_error(kind, path, fmt::format("allocate {} bytes", size));
  }
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(std::string path, std::vector<TensorEntry> tensors,
                                     std::map<std::string, std::string> metadata, Error::Kind kind)
    : path_(std::move(path)),
      temporary_(fmt::format("{}.{}.tmp", path_, random_name())),
      kind_(kind),
      entries_(std::move(tensors)),
      state_(std::make_unique<State>()) {
  data_bytes_ = arrange_entries(entries_);
  for (const TensorEntry& entry : entries_) {
    bool is_new = state_->index.emplace(entry.name, state_->index.size()).second;
    if (!is_new) throw Error::internal(path_, fmt::format("tensor \"{}\" is to be written twice", entry.name));
  }
  state_->written = std::vector<std::atomic<uint64_t>>(entries_.size());
  std::string header = encode_header(entries_, metadata);
  data_offset_ = header.size();
  file_ = create_new(temporary_);
  try {
    allocate_extents(file_, size(), path_, kind_);
    write_at(file_, header.data(), header.size(), 0, path_, kind_);
  } catch (...) {
    ::unlink(temporary_.c_str());
    throw;
  }
}

SafetensorsWriter::~SafetensorsWriter() {
  if (file_.is_open()) ::unlink(temporary_.c_str());
}

void SafetensorsWriter::write(const std::string& name, const void* bytes, size_t size, size_t offset_in_tensor) {
  auto found = state_->index.find(name);
  if (found == state_->index.end()) throw Error::internal(path_, fmt::format("no tensor \"{}\" was announced", name));
  const TensorEntry& entry = entries_[found->second];
  if (offset_in_tensor > entry.size() || size > entry.size() - offset_in_tensor) {
    throw Error::internal(path_, fmt::format("tensor \"{}\": a write beyond its end", name))
        .got(fmt::format("{} bytes at {}", size, offset_in_tensor))
        .expected(fmt::format("at most {}", entry.size()));
  }
  write_at(file_, bytes, size, data_offset_ + entry.begin + offset_in_tensor, path_, kind_);
  state_->written[found->second] += size;
}

void SafetensorsWriter::finish() {
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (state_->written[i] == entries_[i].size()) continue;
    throw Error::internal(path_, fmt::format("tensor \"{}\" is not written whole", entries_[i].name))
        .got(state_->written[i].load())
        .expected(entries_[i].size());
  }
  sync_file(file_, path_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) throw system_error(kind_, path_, "rename into place");
  file_.close(path_);
  fsync_folder(folder_of(path_));
}

std::vector<std::string> SafetensorsWriter::tiles() const { return hash_tiles(MappedFile::open(path_, kind_)); }

}  // namespace echelon
