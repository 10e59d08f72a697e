// Memory that several ranks of one node see.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

namespace echelon {

/// Zeroed, page-aligned memory; it goes when the last rank lets go of it, killed or not.
using NodeMemory = std::shared_ptr<std::byte>;

/// How the ranks of a group come by common memory: one makes it and gives the others its ticket, they open it, the
/// maker closes the ticket.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  /// Errors: Error::memory when the node has not so much left.
  virtual NodeMemory make(int64_t bytes, uint64_t& ticket) = 0;
  /// Errors: Error::memory; Error::comm when the maker's memory cannot be reached.
  virtual NodeMemory open(int64_t bytes, uint64_t ticket) = 0;
  virtual void close(uint64_t ticket) = 0;
};

/// For ranks that are threads of one process.
std::unique_ptr<MemorySource> heap_memory();
/// For processes: memfds, opened through /proc/<pid>/fd. They have no name to be left behind, and do not depend on the
/// size of /dev/shm.
std::unique_ptr<MemorySource> memfd_memory();

/// Bytes that can still be had: what the kernel and the control group leave.
int64_t free_memory_bytes();

/// The windows of one group, as one rank has mapped them.
class WindowTable {
 public:
  struct Place {
    uint64_t window = 0;  ///< number of the window, the same on every rank; 0: in no window
    int64_t offset = 0;   ///< bytes from the window's start
    int64_t slice = 0;    ///< bytes of one rank's slice
    bool operator==(const Place&) const = default;
  };

  struct Found {
    Place place;
    std::byte* base = nullptr;  ///< where the window starts here
  };

  /// Lists `memory` under `window` until the result is dropped.
  static NodeMemory list(const std::shared_ptr<WindowTable>& table, NodeMemory memory, int64_t bytes, int64_t slice,
                         uint64_t window);
  /// Where `bytes` at `address` lie.
  Found find(const void* address, int64_t bytes) const;

 private:
  struct Listed {
    uint64_t window;
    int64_t bytes, slice;
  };
  mutable std::mutex mutex_;  // tensors are freed on any thread
  std::map<std::byte*, Listed> windows_;
};

}  // namespace echelon
