#include "launch/command/machine.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

namespace echelon {

namespace fs = std::filesystem;

namespace {

struct Affinity {
  int count = 1;
  bool several_per_core = false;
};

Affinity affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return {};
  Affinity found{CPU_COUNT(&set), false};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    std::string siblings = first_line(fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu));
    found.several_per_core |= siblings.find_first_of(",-") != std::string::npos;
  }
  return found;
}

// A container's limit in processors (cgroup 2, else 1); 0: none.
double processor_limit() {
  std::istringstream two(first_line("/sys/fs/cgroup/cpu.max"));
  double quota = 0, period = 0;
  if (two >> quota >> period && period > 0) return quota / period;
  std::istringstream one(first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us") + " " +
                         first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us"));
  if (one >> quota >> period && quota > 0 && period > 0) return quota / period;
  return 0;
}

int64_t memory_limit() {
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    int64_t bytes = 0;
    if (std::istringstream(first_line(path)) >> bytes && bytes > 0) return bytes;
  }
  return INT64_MAX;
}

int64_t meminfo_bytes(const std::string& key) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    int64_t kibibytes = 0;
    if (line.starts_with(key + ":") && std::istringstream(line.substr(key.size() + 1)) >> kibibytes)
      return kibibytes * 1024;
  }
  return 0;
}

std::string gpu_model(const fs::path& folder) {
  std::ifstream file(folder / "information");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("Model:")) continue;
    size_t start = line.find_first_not_of(" \t", 6);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "NVIDIA GPU";
}

// CUDA_VISIBLE_DEVICES hides GPUs; an empty list hides them all.
std::vector<std::string> visible_gpus() {
  std::vector<std::string> gpus;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc/driver/nvidia/gpus", ignored))
    gpus.push_back(gpu_model(entry.path()));
  for (int i = 0; gpus.empty() && exists(fs::path(fmt::format("/dev/nvidia{}", i))); ++i) gpus.push_back("NVIDIA GPU");
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (!visible) return gpus;
  std::string list = visible;
  size_t shown = list.empty() || list.starts_with("-") ? 0 : std::count(list.begin(), list.end(), ',') + 1;
  gpus.resize(std::min(gpus.size(), shown));
  return gpus;
}

}  // namespace

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

Machine this_machine() {
  Affinity mine = affinity();
  double limit = processor_limit();
  bool limited = limit > 0 && limit < mine.count;
  Machine machine;
  machine.processors = limited ? std::max(1, static_cast<int>(std::floor(limit))) : mine.count;
  machine.pinnable = !limited;
  machine.several_per_core = mine.several_per_core;
  machine.gpus = visible_gpus();
  machine.memory_bytes = std::min(meminfo_bytes("MemTotal"), memory_limit());
  machine.memory_free_bytes = meminfo_bytes("MemAvailable");
  return machine;
}

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream folders(path ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (access(candidate.c_str(), X_OK) == 0 && fs::is_regular_file(candidate)) return candidate;
  }
  return "";
}

}  // namespace echelon
