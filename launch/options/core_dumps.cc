#include "launch/options/core_dumps.h"

#include <cstdlib>

#include <sys/resource.h>

namespace echelon {

void leave_no_core() {
  if (std::getenv("ECHELON_CORE_DUMPS")) return;
  struct rlimit limit;
  if (::getrlimit(RLIMIT_CORE, &limit) != 0) return;
  limit.rlim_cur = 0;
  ::setrlimit(RLIMIT_CORE, &limit);
}

}  // namespace echelon
