// Whole files: read with a limit, written so that a reader sees the old or the new one, mapped, listed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <time.h>

#include "cluster/base/error.h"

namespace echelon {

/// The bytes of a regular file of at most `limit_bytes`. The size is checked before anything is allocated.
/// Errors: of `kind`, when the file is missing, unreadable, not a regular file, larger, or shrinks while it is read.
std::string read_file(const std::string& path, Error::Kind kind, int64_t limit_bytes);

/// Replaces `path` by `bytes`: a temporary file beside it, fsync, rename, fsync of the folder. Mode 0666 less the
/// umask. Errors: Error::storage with the system's reason; `path` then still holds what it held.
void write_file_atomically(const std::string& path, std::string_view bytes);

/// Makes renames, creations and removals in a folder durable. Errors: Error::storage.
void fsync_folder(const std::string& path);

/// Names of a folder's entries, sorted, without "." and "..". Errors: Error::storage when it cannot be read.
std::vector<std::string> list_folder(const std::string& path);

/// Whether something, of any kind, has that name; a link that leads nowhere has.
bool exists(const std::string& path);
bool is_folder(const std::string& path);

/// Creates a folder and those above it, mode 0777 less the umask; one that is there is fine. Errors: Error::storage.
void make_folders(const std::string& path);

/// The folder part of a path ("." without one), the last name of a path, and a path of both.
std::string folder_of(const std::string& path);
std::string name_of_file(const std::string& path);
std::string join_path(const std::string& folder, std::string_view name);

/// Whether `name` names an entry of the folder it is looked up in, and nothing outside: no separator, no "..", no
/// control character, at most 255 bytes.
bool is_bare_name(std::string_view name);

/// The file behind a name of a folder that somebody else made. A link out of the folder is refused: whoever made it
/// would choose which file of the reader's is opened, or copied. The hub's cache is the exception:
/// `snapshots/<revision>/` links to `blobs/` beside it. Errors: of `kind`.
std::string file_inside(const std::string& folder, const std::string& name, Error::Kind kind);

/// A regular file, mapped for reading. Move-only; an empty file has size 0 and no mapping.
class MappedFile {
 public:
  /// Errors: of `kind`, when the file is missing, unreadable, or a folder, pipe or device (none of which is waited
  /// for).
  static MappedFile open(const std::string& path, Error::Kind kind);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::string& path() const { return path_; }
  /// Throws when the file's size or time of change is no longer what it was at open: what was read cannot be trusted.
  void check_unchanged() const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  struct timespec modified_ = {};
  std::string path_;
  Error::Kind kind_ = Error::Kind::input;
};

}  // namespace echelon
