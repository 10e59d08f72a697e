// A file that needs no folder, for readers that take a path.
#pragma once

#include <string>
#include <string_view>

#include <sys/mman.h>
#include <unistd.h>

#include "cluster/base/descriptor.h"

namespace echelon::hostile {

class InMemoryFile {
 public:
  explicit InMemoryFile(std::string_view bytes) : file_(::memfd_create("hostile", MFD_CLOEXEC)) {
    write_at(file_, bytes.data(), bytes.size(), 0, "memory");
  }
  std::string path() const { return fmt::format("/proc/self/fd/{}", file_.get()); }

 private:
  Descriptor file_;
};

}  // namespace echelon::hostile
