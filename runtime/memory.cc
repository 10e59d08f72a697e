#include "runtime/memory.h"

#include <malloc.h>

#include <fstream>
#include <limits>
#include <string>

#include <c10/core/CachingDeviceAllocator.h>

namespace echelon {

namespace {

int64_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    if (word != "VmHWM:") continue;
    int64_t kilobytes = 0;
    status >> kilobytes;
    return kilobytes * 1024;
  }
  return 0;
}

}  // namespace

void keep_large_blocks() {
  mallopt(M_MMAP_MAX, 0);  // blocks of any size from the heap, which keeps them
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
}

int64_t peak_memory_bytes(c10::Device device) {
  if (device.is_cpu()) return peak_resident_bytes();
  auto of_all_pools = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  return at::getDeviceAllocator(device.type())->getDeviceStats(device.index()).allocated_bytes.at(of_all_pools).peak;
}

}  // namespace echelon
