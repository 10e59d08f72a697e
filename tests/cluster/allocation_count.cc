#include "tests/cluster/allocation_count.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include <malloc.h>

namespace {

std::atomic<int64_t> live_bytes, highest_bytes;

void* counted(size_t size) {
  void* memory = std::malloc(size);
  if (!memory) throw std::bad_alloc();
  int64_t live = live_bytes += static_cast<int64_t>(malloc_usable_size(memory));
  int64_t highest = highest_bytes;
  while (live > highest && !highest_bytes.compare_exchange_weak(highest, live)) {
  }
  return memory;
}

void uncounted(void* memory) {
  if (memory) live_bytes -= static_cast<int64_t>(malloc_usable_size(memory));
  std::free(memory);
}

}  // namespace

void* operator new(size_t size) { return counted(size); }
void* operator new[](size_t size) { return counted(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  try {
    return counted(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void operator delete(void* memory) noexcept { uncounted(memory); }
void operator delete[](void* memory) noexcept { uncounted(memory); }
void operator delete(void* memory, size_t) noexcept { uncounted(memory); }
void operator delete[](void* memory, size_t) noexcept { uncounted(memory); }

namespace echelon {

int64_t peak_bytes(const std::function<void()>& action) {
  int64_t before = live_bytes;
  highest_bytes = before;
  action();
  return highest_bytes - before;
}

}  // namespace echelon
