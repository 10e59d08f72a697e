#include "comm/backends/node_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <string>

#include "cluster/base/error.h"

namespace echelon {

namespace {

NodeMemory map(int64_t bytes, int flags, int fd) {
  auto size = static_cast<size_t>(bytes);
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE, fd, 0);
  if (memory == MAP_FAILED) {
    throw Error::memory("", fmt::format("cannot map {} bytes: {}", bytes, std::strerror(errno)));
  }
  return {static_cast<std::byte*>(memory), [size](std::byte* mapped) { ::munmap(mapped, size); }};
}

void require_free(int64_t bytes) {
  int64_t left = free_memory_bytes();
  if (bytes <= left) return;
  throw Error::memory("", "not enough memory for a window")
      .got(fmt::format("{} bytes wanted", bytes))
      .expected(fmt::format("at most the {} bytes that are free", left))
      .remedy("use fewer ranks on this node, or a higher ZeRO stage");
}

class HeapMemory final : public MemorySource {
 public:
  NodeMemory make(int64_t bytes, uint64_t& ticket) override {
    require_free(bytes);
    auto* memory = new NodeMemory(map(bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1));
    ticket = reinterpret_cast<uint64_t>(memory);
    return *memory;
  }
  NodeMemory open(int64_t, uint64_t ticket) override { return *reinterpret_cast<NodeMemory*>(ticket); }
  void close(uint64_t ticket) override { delete reinterpret_cast<NodeMemory*>(ticket); }
};

class MemfdMemory final : public MemorySource {
 public:
  NodeMemory make(int64_t bytes, uint64_t& ticket) override {
    require_free(bytes);
    int fd = ::memfd_create("echelon", MFD_CLOEXEC);
    if (fd < 0) throw Error::memory("memfd", std::strerror(errno));
    ticket = static_cast<uint64_t>(::getpid()) << 32 | static_cast<uint32_t>(fd);
    if (::ftruncate(fd, bytes) != 0) {
      ::close(fd);
      throw Error::memory("memfd", fmt::format("cannot hold {} bytes: {}", bytes, std::strerror(errno)));
    }
    return map(bytes, MAP_SHARED, fd);
  }

  NodeMemory open(int64_t bytes, uint64_t ticket) override {
    std::string path = fmt::format("/proc/{}/fd/{}", ticket >> 32, static_cast<uint32_t>(ticket));
    int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (fd < 0) throw unreachable(path, std::strerror(errno));
    struct stat status {};
    bool fits = ::fstat(fd, &status) == 0 && status.st_size == bytes;
    NodeMemory memory;
    if (fits) memory = map(bytes, MAP_SHARED, fd);
    ::close(fd);
    if (!fits) throw unreachable(path, "not the memory that was promised");
    return memory;
  }

  void close(uint64_t ticket) override { ::close(static_cast<int>(static_cast<uint32_t>(ticket))); }

 private:
  static Error unreachable(const std::string& path, const char* why) {
    return Error::comm(path, fmt::format("cannot open the memory of another rank of this node: {}", why))
        .remedy("the ranks of a node must run as one user and see each other's processes");
  }
};

/// The number after `key` in a file such as /proc/meminfo (no key: the file's first word); nothing when it is not
/// there.
std::optional<int64_t> number_in(const char* path, const std::string& key = "") {
  std::ifstream file(path);
  std::string word;
  while (!key.empty() && file >> word && word != key) {
  }
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

}  // namespace

std::unique_ptr<MemorySource> heap_memory() { return std::make_unique<HeapMemory>(); }
std::unique_ptr<MemorySource> memfd_memory() { return std::make_unique<MemfdMemory>(); }

int64_t free_memory_bytes() {
  int64_t left = std::numeric_limits<int64_t>::max();
  if (auto available = number_in("/proc/meminfo", "MemAvailable:")) left = *available * 1024;
  // Of a container; the file says "max" where there is no limit.
  auto limit = number_in("/sys/fs/cgroup/memory.max");
  auto used = number_in("/sys/fs/cgroup/memory.current");
  if (limit && used) {
    // Cached files count as used, and make room when asked.
    for (const char* cached : {"active_file", "inactive_file"}) {
      *used -= number_in("/sys/fs/cgroup/memory.stat", cached).value_or(0);
    }
    left = std::min(left, std::max<int64_t>(0, *limit - *used));
  }
  return left;
}

NodeMemory WindowTable::list(const std::shared_ptr<WindowTable>& table, NodeMemory memory, int64_t bytes, int64_t slice,
                             uint64_t window) {
  std::lock_guard lock(table->mutex_);
  std::byte* base = memory.get();
  table->windows_[base] = {window, bytes, slice};
  return {base, [table, memory](std::byte* base) mutable {
            {
              std::lock_guard lock(table->mutex_);
              table->windows_.erase(base);
            }
            memory.reset();
          }};
}

WindowTable::Found WindowTable::find(const void* address, int64_t bytes) const {
  std::lock_guard lock(mutex_);
  auto* start = static_cast<std::byte*>(const_cast<void*>(address));
  auto after = windows_.upper_bound(start);
  if (after == windows_.begin()) return {};
  const auto& [base, listed] = *std::prev(after);
  int64_t offset = start - base;
  if (offset + bytes > listed.bytes) return {};
  return {{listed.window, offset, listed.slice}, base};
}

}  // namespace echelon
