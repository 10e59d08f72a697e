// A rank alone: shared memory with nobody to share it with. Group answers its collectives before they come here.
#include "comm/backends/backend.h"
#include "comm/backends/shared_memory.h"

namespace echelon {

std::shared_ptr<Backend> make_self(std::shared_ptr<Membership> membership) {
  uint64_t ticket = 0;
  std::shared_ptr<MemorySource> source = heap_memory();
  NodeMemory page = source->make(SharedMemory::page_bytes(1), ticket);
  source->close(ticket);
  return std::make_shared<SharedMemory>(std::move(membership), std::move(source), std::move(page), 0, 1);
}

}  // namespace echelon
