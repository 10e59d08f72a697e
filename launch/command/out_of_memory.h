// Whether it was the system that killed a process, for want of memory.
#pragma once

#include <cstdint>

namespace echelon {

/// Processes of this machine, other users' included, that the kernel has killed since it started because a machine or
/// a control group was out of memory; 0 where it does not say.
int64_t out_of_memory_kills();

/// Notices such kills while it is asked now and then.
class OutOfMemory {
 public:
  /// `kills`: as of out_of_memory_kills(); `now`: seconds of a clock that never goes back.
  void look(double now, int64_t kills);
  /// Whether one was noticed within the last seconds: a process that has just been killed was killed so.
  bool is_recent(double now) const;

 private:
  int64_t kills_ = -1;
  double noticed_ = -1e9;
};

}  // namespace echelon
