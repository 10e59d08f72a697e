#include "launch/command/out_of_memory.h"

#include <fstream>
#include <string>

namespace echelon {

namespace {

constexpr double kRecentSeconds = 5;  // mpirun takes a second or two to end

}  // namespace

int64_t out_of_memory_kills() {
  std::ifstream counters("/proc/vmstat");
  std::string name;
  for (int64_t count = 0; counters >> name >> count;) {
    if (name == "oom_kill") return count;
  }
  return 0;
}

void OutOfMemory::look(double now, int64_t kills) {
  if (kills_ >= 0 && kills > kills_) noticed_ = now;
  kills_ = kills;
}

bool OutOfMemory::is_recent(double now) const { return now - noticed_ <= kRecentSeconds; }

}  // namespace echelon
