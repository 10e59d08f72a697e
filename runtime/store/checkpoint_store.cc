#include "runtime/store/checkpoint_store.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cluster/base/log.h"
#include "cluster/base/text.h"
#include "runtime/store/lease.h"

namespace echelon {

namespace {

void remove_folder(const std::string& path) {
  std::error_code problem;
  std::filesystem::remove_all(path, problem);
  if (problem) throw Error::storage(path, fmt::format("cannot remove: {}", problem.message()));
}

void check_free_space(const std::string& folder, int64_t bytes) {
  struct statvfs status;
  if (::statvfs(folder.c_str(), &status) != 0) throw system_error(Error::Kind::storage, folder, "ask for free space");
  double free_bytes = static_cast<double>(status.f_bavail) * status.f_frsize, wanted = 1.05 * bytes;
  if (free_bytes >= wanted) return;
  throw Error::storage(folder, "no space left for a checkpoint")
      .got(human_bytes(static_cast<int64_t>(free_bytes)) + " free")
      .expected(human_bytes(static_cast<int64_t>(wanted)));
}

/// Renames and refuses to replace. Some file systems do not know the flag; there a folder that holds something still
/// cannot be replaced.
void rename_to_new(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return;
  bool is_unknown_flag = errno == EINVAL || errno == ENOSYS;
  if (!is_unknown_flag || ::rename(from.c_str(), to.c_str()) != 0) {
    throw system_error(Error::Kind::storage, to, "rename the checkpoint into place");
  }
}

/// What lies in the folder must be what the writers say they wrote.
void compare_with_votes(const std::string& folder, const std::vector<FileRecord>& votes) {
  std::set<std::string> unvoted;
  for (const std::string& name : list_folder(folder)) unvoted.insert(name);
  for (const FileRecord& vote : votes) {
    std::string path = join_path(folder, vote.name);
    struct stat status;
    if (::lstat(path.c_str(), &status) != 0) throw system_error(Error::Kind::storage, path, "find what was voted for");
    if (!S_ISREG(status.st_mode) || status.st_size != vote.size) {
      throw Error::storage(path, "not what was voted for").got(status.st_size).expected(vote.size);
    }
    unvoted.erase(vote.name);
  }
  if (!unvoted.empty()) throw Error::storage(join_path(folder, *unvoted.begin()), "nobody voted for this file");
}

}  // namespace

CheckpointStore::CheckpointStore(std::string run_folder)
    : run_folder_(std::move(run_folder)),
      checkpoints_(join_path(run_folder_, "checkpoints")),
      inflight_(join_path(run_folder_, "inflight")),
      trash_(join_path(run_folder_, "trash")) {}

std::string CheckpointStore::folder(int64_t step) const { return join_path(checkpoints_, step_name(step)); }

std::string CheckpointStore::begin(int64_t step, int64_t bytes) const {
  make_folders(inflight_);
  check_free_space(inflight_, bytes);
  std::string staging = join_path(inflight_, fmt::format("{}.{}", step_name(step), random_name()));
  if (::mkdir(staging.c_str(), 0777) != 0) throw system_error(Error::Kind::storage, staging, "create the folder");
  fsync_folder(inflight_);
  return staging;
}

Manifest CheckpointStore::commit(const std::string& staging, int64_t step, std::vector<FileRecord> votes,
                                 const std::string& layout) const {
  Manifest manifest = seal({.step = step,
                            .epoch = epoch_,
                            .layout = layout,
                            .previous_root = previous_root(step),
                            .files = std::move(votes)});
  compare_with_votes(staging, manifest.files);
  write_file_atomically(join_path(staging, "manifest.json"), dump_manifest(manifest));
  make_folders(checkpoints_);
  // Frozen after this line, we are too late all the same: a new holder clears what is in flight before it looks for the
  // newest step, and our rename finds nothing.
  if (epoch_ > 0) check_claim(run_folder_, epoch_);
  make_way(step);
  rename_to_new(staging, folder(step));
  fsync_folder(checkpoints_);
  fsync_folder(inflight_);
  try {
    write_file_atomically(join_path(checkpoints_, "latest"), step_name(step) + "\n");
  } catch (const Error& error) {
    // For people only: the checkpoint is committed all the same.
    EC_LOG(warning, "{}", error.what());
  }
  return manifest;
}

void CheckpointStore::abandon(const std::string& staging) const {
  if (folder_of(staging) != inflight_) throw Error::internal(staging, "is not a staging folder of this run");
  remove_folder(staging);
}

std::vector<int64_t> CheckpointStore::steps() const {
  struct stat status;
  // Only "not there" means no checkpoints; a store that cannot be read must not look like a new run.
  if (::lstat(checkpoints_.c_str(), &status) != 0 && errno == ENOENT) return {};
  std::vector<int64_t> found;
  for (const std::string& name : list_folder(checkpoints_)) {
    if (std::optional<int64_t> step = step_of_name(name)) found.push_back(*step);
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::optional<Checkpoint> CheckpointStore::recover(std::optional<int64_t> below,
                                                   std::vector<std::string> passed_over) const {
  std::vector<int64_t> found = steps();
  if (found.empty()) return {};
  for (auto step = found.rbegin(); step != found.rend(); ++step) {
    if (below && *step >= *below) continue;
    try {
      Checkpoint checkpoint = open_checkpoint(folder(*step));
      checkpoint.passed_over = std::move(passed_over);
      return checkpoint;
    } catch (const Error& error) {
      passed_over.push_back(fmt::format("{}: {}", step_name(*step), error.what()));
    }
  }
  throw Error::storage(checkpoints_,
                       fmt::format("CKPT_INTEGRITY: none of the checkpoints{} is whole: {}",
                                   below ? fmt::format(" below step {}", *below) : "", fmt::join(passed_over, "; ")))
      .remedy("restore one, or start a new run in another folder");
}

std::string CheckpointStore::set_aside(int64_t step) const {
  if (epoch_ > 0) check_claim(run_folder_, epoch_);
  std::string damaged = join_path(run_folder_, "damaged");
  make_folders(damaged);
  std::string place = join_path(damaged, fmt::format("{}.{}", step_name(step), random_name()));
  rename_to_new(folder(step), place);
  fsync_folder(checkpoints_);
  fsync_folder(damaged);
  return place;
}

std::vector<int64_t> CheckpointStore::retire(int64_t keep, const std::vector<int64_t>& pinned) const {
  if (epoch_ > 0) check_claim(run_folder_, epoch_);
  std::vector<int64_t> found = steps(), removed;
  int64_t right = 0;
  for (auto step = found.rbegin(); step != found.rend(); ++step) {
    if (right < std::max<int64_t>(keep, 2)) {
      right += is_right(*step);
    } else if (std::find(pinned.begin(), pinned.end(), *step) == pinned.end()) {
      discard(folder(*step));
      removed.push_back(*step);
    }
  }
  return removed;
}

void CheckpointStore::clean() const {
  for (const std::string& garbage : {inflight_, trash_}) {
    if (!is_folder(garbage)) continue;
    for (const std::string& name : list_folder(garbage)) {
      std::string doomed = join_path(garbage, name);
      garbage == inflight_ ? discard(doomed) : remove_folder(doomed);
    }
  }
}

bool CheckpointStore::is_right(int64_t step) const {
  try {
    open_checkpoint(folder(step));
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::string CheckpointStore::previous_root(int64_t step) const {
  std::vector<int64_t> found = steps();
  for (auto before = found.rbegin(); before != found.rend(); ++before) {
    if (*before < step && is_right(*before)) return open_checkpoint(folder(*before)).manifest.root;
  }
  return "";
}

void CheckpointStore::make_way(int64_t step) const {
  if (!exists(folder(step))) return;
  if (is_right(step) && find_damage(open_checkpoint(folder(step))).empty()) {
    throw Error::storage(folder(step), "this step is already committed and whole");
  }
  std::string place = set_aside(step);
  EC_LOG(warning, "the damaged checkpoint of step {} was moved to {}", step, place);
}

/// Renamed first: a half-deleted step must never be taken for a checkpoint.
void CheckpointStore::discard(const std::string& folder) const {
  make_folders(trash_);
  std::string doomed = join_path(trash_, fmt::format("{}.{}", name_of_file(folder), random_name()));
  rename_to_new(folder, doomed);
  fsync_folder(folder_of(folder));
  fsync_folder(trash_);
  remove_folder(doomed);
}

}  // namespace echelon
