// Open files of the system: an owner that closes them, writes that finish or throw, errors with the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "cluster/base/error.h"

namespace echelon {

/// An error with the reason in `errno`: "<kind>: <path>: cannot <verb>: no space left on device".
Error system_error(Error::Kind kind, const std::string& path, std::string_view verb);

/// Owns an open file descriptor.
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  /// Closes and tells: on some file systems close is where a failed write is reported. Errors: Error::storage.
  void close(const std::string& path);

 private:
  int fd_ = -1;
};

/// Opens `path` for reading without following it into a pipe or device. Errors: of `kind`, unless it is a regular file.
Descriptor open_regular(const std::string& path, Error::Kind kind);

/// Creates a file that was not there. Errors: Error::storage.
Descriptor create_new(const std::string& path, int mode = 0666);

/// Writes all of it at `offset`. Errors: of `kind`.
void write_at(const Descriptor& file, const void* bytes, size_t size, uint64_t offset, const std::string& path,
              Error::Kind kind = Error::Kind::storage);

/// fsync. After a failure the file is lost: a second fsync may succeed without having written. Errors: Error::storage.
void sync_file(const Descriptor& file, const std::string& path);

/// Eight random characters, for names that must not collide or be guessed.
std::string random_name();

}  // namespace echelon
