// What this machine offers to ranks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace echelon {

struct Machine {
  int processors = 1;             ///< that this process may use at once (affinity and the container's limit)
  bool pinnable = false;          ///< the processors are whole: not a share of more
  bool several_per_core = false;  ///< simultaneous multithreading among them
  std::vector<std::string> gpus;  ///< models of the GPUs that are visible here
  int64_t memory_bytes = 0;       ///< of the machine or the container, the smaller
  int64_t memory_free_bytes = 0;
};

Machine this_machine();

/// Full path of a program on PATH, or "".
std::string find_program(const std::string& name);

/// First line of a small file, or "".
std::string first_line(const std::string& path);

}  // namespace echelon
