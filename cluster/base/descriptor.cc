#include "cluster/base/descriptor.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

namespace echelon {

Error system_error(Error::Kind kind, const std::string& path, std::string_view verb) {
  std::string reason = std::strerror(errno);
  if (!reason.empty()) reason[0] = static_cast<char>(std::tolower(reason[0]));
  return Error(kind, path, fmt::format("cannot {}: {}", verb, reason));
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = std::exchange(other.fd_, -1);
  }
  return *this;
}

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

void Descriptor::close(const std::string& path) {
  if (fd_ >= 0 && ::close(std::exchange(fd_, -1)) != 0) throw system_error(Error::Kind::storage, path, "close");
}

Descriptor open_regular(const std::string& path, Error::Kind kind) {
  // Non-blocking: opening a pipe that nobody writes to would wait for ever.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!file.is_open()) throw system_error(kind, path, "open");
  struct stat status;
  if (::fstat(file.get(), &status) != 0) throw system_error(kind, path, "look at");
  if (!S_ISREG(status.st_mode)) {
    throw Error(kind, path, S_ISDIR(status.st_mode) ? "is a folder, not a file" : "is not a regular file");
  }
  return file;
}

Descriptor create_new(const std::string& path, int mode) {
  Descriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode));
  if (!file.is_open()) throw system_error(Error::Kind::storage, path, "create");
  return file;
}

void write_at(const Descriptor& file, const void* bytes, size_t size, uint64_t offset, const std::string& path,
              Error::Kind kind) {
  const char* at = static_cast<const char*>(bytes);
  while (size > 0) {
    ssize_t written = ::pwrite(file.get(), at, size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw system_error(kind, path, "write");
    at += written;
    size -= written;
    offset += written;
  }
}

void sync_file(const Descriptor& file, const std::string& path) {
  if (::fsync(file.get()) != 0) throw system_error(Error::Kind::storage, path, "write it to disk");
}

std::string random_name() {
  unsigned char bytes[8];
  if (::getrandom(bytes, sizeof bytes, 0) != sizeof bytes) {
    throw system_error(Error::Kind::internal, "random numbers", "get from the system");
  }
  std::string name;
  for (unsigned char byte : bytes) name += "abcdefghijklmnopqrstuvwxyz234567"[byte % 32];
  return name;
}

}  // namespace echelon
