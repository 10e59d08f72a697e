// Ranks as threads of one process: windows lie on the heap.
#include "comm/backends/backend.h"
#include "comm/backends/shared_memory.h"

namespace echelon {

std::vector<std::shared_ptr<Backend>> make_threads(const std::vector<std::shared_ptr<Membership>>& memberships) {
  auto size = static_cast<int>(memberships.size());
  uint64_t ticket = 0;
  std::shared_ptr<MemorySource> source = heap_memory();
  NodeMemory page = source->make(SharedMemory::page_bytes(size), ticket);
  source->close(ticket);
  std::vector<std::shared_ptr<Backend>> ranks;
  for (int rank = 0; rank < size; ++rank) {
    const auto& membership = memberships[static_cast<size_t>(rank)];
    auto end = std::make_shared<SharedMemory>(membership, source, page, rank, size);
    membership->failure = end->failure();
    ranks.push_back(std::move(end));
  }
  return ranks;
}

}  // namespace echelon
