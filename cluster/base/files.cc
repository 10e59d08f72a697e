#include "cluster/base/files.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/bus_error.h"
#include "cluster/base/descriptor.h"

namespace echelon {

namespace {

struct stat status_of(const Descriptor& file, const std::string& path, Error::Kind kind) {
  struct stat status;
  if (::fstat(file.get(), &status) != 0) throw system_error(kind, path, "look at");
  return status;
}

/// Of stat's result. A disk that cannot say must not be taken for one that says no: a run that was replaced would find
/// no claim above its own.
bool is_found(int result, const std::string& path) {
  if (result == 0) return true;
  bool is_absent = errno == ENOENT || errno == ENOTDIR || errno == ELOOP || errno == ENAMETOOLONG || errno == EACCES;
  if (!is_absent) throw system_error(Error::Kind::storage, path, "look at");
  return false;
}

std::string real_path(const std::string& path, Error::Kind kind) {
  std::unique_ptr<char, void (*)(void*)> resolved(::realpath(path.c_str(), nullptr), std::free);
  if (!resolved) throw system_error(kind, path, "open");
  return resolved.get();
}

/// Removes a temporary file unless it got its name.
class Temporary {
 public:
  explicit Temporary(std::string path) : path_(std::move(path)) {}
  ~Temporary() {
    if (!kept_) ::unlink(path_.c_str());
  }
  void rename_to(const std::string& path) {
    if (::rename(path_.c_str(), path.c_str()) != 0) throw system_error(Error::Kind::storage, path, "rename into place");
    kept_ = true;
  }

 private:
  std::string path_;
  bool kept_ = false;
};

}  // namespace

std::string read_file(const std::string& path, Error::Kind kind, int64_t limit_bytes) {
  Descriptor file = open_regular(path, kind);
  int64_t size = status_of(file, path, kind).st_size;
  if (size > limit_bytes) {
    throw Error(kind, path, "file is too large")
        .got(fmt::format("{} bytes", size))
        .expected(fmt::format("at most {}", limit_bytes));
  }
  std::string bytes(size, '\0');
  for (int64_t at = 0; at < size;) {
    ssize_t got = ::pread(file.get(), bytes.data() + at, size - at, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw system_error(kind, path, "read");
    if (got == 0) throw Error(kind, path, "CHANGED: file became shorter while it was read");
    at += got;
  }
  return bytes;
}

void write_file_atomically(const std::string& path, std::string_view bytes) {
  std::string temporary_path = fmt::format("{}.{}.tmp", path, random_name());
  Descriptor file = create_new(temporary_path);
  Temporary temporary(temporary_path);
  write_at(file, bytes.data(), bytes.size(), 0, path);
  sync_file(file, path);
  file.close(path);
  temporary.rename_to(path);
  fsync_folder(folder_of(path));
}

void fsync_folder(const std::string& path) {
  Descriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.is_open()) throw system_error(Error::Kind::storage, path, "open");
  // Some network file systems have nothing to flush for a folder and say EINVAL.
  if (::fsync(folder.get()) != 0 && errno != EINVAL) throw system_error(Error::Kind::storage, path, "write to disk");
}

std::vector<std::string> list_folder(const std::string& path) {
  std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir(path.c_str()), ::closedir);
  if (!folder) throw system_error(Error::Kind::storage, path, "list");
  std::vector<std::string> names;
  errno = 0;
  while (dirent* entry = ::readdir(folder.get())) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
    errno = 0;
  }
  if (errno != 0) throw system_error(Error::Kind::storage, path, "list");
  std::sort(names.begin(), names.end());
  return names;
}

bool exists(const std::string& path) {
  struct stat status;
  return is_found(::lstat(path.c_str(), &status), path);
}

bool is_folder(const std::string& path) {
  struct stat status;
  return is_found(::stat(path.c_str(), &status), path) && S_ISDIR(status.st_mode);
}

void make_folders(const std::string& path) {
  if (is_folder(path)) return;
  std::string parent = folder_of(path);
  if (parent != path) make_folders(parent);
  if (::mkdir(path.c_str(), 0777) == 0) {
    fsync_folder(parent);
  } else if (errno != EEXIST || !is_folder(path)) {
    throw system_error(Error::Kind::storage, path, "create the folder");
  }
}

std::string folder_of(const std::string& path) {
  std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

std::string name_of_file(const std::string& path) { return std::filesystem::path(path).filename().string(); }

std::string join_path(const std::string& folder, std::string_view name) {
  return (std::filesystem::path(folder) / name).string();
}

bool is_bare_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name == "." || name == "..") return false;
  return std::none_of(name.begin(), name.end(), [](unsigned char c) { return c == '/' || c < 0x20 || c == 0x7f; });
}

std::string file_inside(const std::string& folder, const std::string& name, Error::Kind kind) {
  std::string inside = real_path(folder, kind), path = real_path(join_path(folder, name), kind);
  std::string home = folder_of(path);
  std::filesystem::path snapshots = std::filesystem::path(inside).parent_path();
  bool is_cached = snapshots.filename() == "snapshots" && home == (snapshots.parent_path() / "blobs").string();
  if (home != inside && !is_cached) {
    throw Error(kind, join_path(folder, name), "INDEX_PATH: a link that leads out of the folder").got(path);
  }
  return path;
}

MappedFile MappedFile::open(const std::string& path, Error::Kind kind) {
  Descriptor file = open_regular(path, kind);
  struct stat status = status_of(file, path, kind);
  MappedFile mapped;
  mapped.path_ = path;
  mapped.kind_ = kind;
  mapped.modified_ = status.st_mtim;
  if (status.st_size == 0) return mapped;
  void* data = ::mmap(nullptr, status.st_size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (data == MAP_FAILED) throw system_error(kind, path, "map");
  mapped.data_ = static_cast<const std::byte*>(data);
  mapped.size_ = status.st_size;
  note_mapping(data, mapped.size_, path, kind);
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      modified_(other.modified_),
      path_(std::move(other.path_)),
      kind_(other.kind_) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(modified_, other.modified_);
  std::swap(path_, other.path_);
  std::swap(kind_, other.kind_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!data_) return;
  forget_mapping(data_);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::check_unchanged() const {
  struct stat status;
  if (::stat(path_.c_str(), &status) != 0) throw system_error(kind_, path_, "look at");
  bool same_time = status.st_mtim.tv_sec == modified_.tv_sec && status.st_mtim.tv_nsec == modified_.tv_nsec;
  if (static_cast<size_t>(status.st_size) != size_ || !same_time) {
    throw Error(kind_, path_, "CHANGED: file was changed while it was read");
  }
}

}  // namespace echelon
