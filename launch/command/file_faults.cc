#include "launch/command/file_faults.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <sys/resource.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"

namespace echelon {

namespace {

constexpr uint64_t kRoomForOtherFiles = 64 << 10;

std::filesystem::path newest_checkpoint(const std::string& run) {
  std::filesystem::path newest;
  for (const std::string& name : list_folder(join_path(run, "checkpoints")))
    if (name.starts_with("step-")) newest = std::filesystem::path(run) / "checkpoints" / name;
  if (newest.empty()) throw Error::recipe("checkpoint", "the run has no checkpoint to damage");
  return newest;
}

/// The largest file of a folder: where a random bit most likely lies.
std::filesystem::path largest_file(const std::filesystem::path& newest) {
  std::filesystem::path largest;
  for (const auto& entry : std::filesystem::directory_iterator(newest))
    if (largest.empty() || entry.file_size() > file_size(largest)) largest = entry.path();
  return largest;
}

void flip_a_bit(const std::filesystem::path& path, std::mt19937_64& random) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  auto place = static_cast<std::streamoff>(random() % file_size(path));
  file.seekg(place);
  char byte = static_cast<char>(file.get() ^ (1 << random() % 8));
  file.seekp(place);
  file.put(byte);
}

/// Stopped, its newest checkpoint changed, and the same command again.
template <class Damage>
int damage_a_checkpoint(DrillJob& job, Damage damage) {
  job.stop_on_request();
  damage(newest_checkpoint(job.folder()));
  job.start();
  return job.finish();
}

/// Of what a run appends to while it trains.
uint64_t largest_other_file(const std::string& run) {
  uint64_t largest = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(run)) {
    bool of_a_checkpoint = entry.path().string().find("/checkpoints/") != std::string::npos ||
                           entry.path().string().find("/inflight/") != std::string::npos;
    if (entry.is_regular_file() && !of_a_checkpoint) largest = std::max<uint64_t>(largest, entry.file_size());
  }
  return largest;
}

/// Of the ranks, at most what they may have.
void limit_files(const DrillJob& job, rlim_t bytes) {
  for (pid_t rank : job.rank_pids()) {
    struct rlimit limit;
    if (::prlimit(rank, RLIMIT_FSIZE, nullptr, &limit) != 0) continue;
    limit.rlim_cur = std::min(bytes, limit.rlim_max);
    ::prlimit(rank, RLIMIT_FSIZE, &limit, nullptr);
  }
}

}  // namespace

int flip_in_a_checkpoint(DrillJob& job, std::mt19937_64& random) {
  return damage_a_checkpoint(job, [&](const auto& folder) { flip_a_bit(largest_file(folder), random); });
}

int cut_a_checkpoint(DrillJob& job, std::mt19937_64& random) {
  return damage_a_checkpoint(job, [&](const auto& folder) {
    auto file = largest_file(folder);
    resize_file(file, random() % file_size(file));
  });
}

int lose_a_file(DrillJob& job, std::mt19937_64&) {
  return damage_a_checkpoint(job, [](const auto& folder) { remove(largest_file(folder)); });
}

int fail_a_save(DrillJob& job, std::mt19937_64&) {
  uint64_t limit = largest_other_file(job.folder()) + kRoomForOtherFiles;
  if (file_size(largest_file(newest_checkpoint(job.folder()))) <= limit)
    throw Error::recipe("checkpoint", "its files are too small to fail and no others").remedy("take a larger model");
  job.fault_begins();
  limit_files(job, limit);
  job.wait_for_notice();
  limit_files(job, RLIM_INFINITY);
  return job.finish();
}

}  // namespace echelon
