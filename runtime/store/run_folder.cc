#include "runtime/store/run_folder.h"

#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/files.h"
#include "cluster/base/log.h"

namespace echelon {

namespace {

using Clock = std::chrono::steady_clock;

constexpr double kSettleSeconds = 2;  // for one who is between taking the lock and writing its claim
constexpr double kBeatsPerLease = 12;
constexpr auto kLook = std::chrono::milliseconds(50);

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::string lock_path(const std::string& path) { return join_path(join_path(path, "lease"), "lock"); }

void create_folder(const std::string& path) {
  make_folders(folder_of(path));
  if (::mkdir(path.c_str(), 0750) == 0) {
    fsync_folder(folder_of(path));
  } else if (errno != EEXIST || !is_folder(path)) {
    throw system_error(Error::Kind::storage, path, "create the run folder");
  }
}

Error held_by(const std::string& path, const std::optional<Claim>& claim) {
  std::string owner = claim && claim->owner && !claim->is_released ? claim->owner->describe() : "another run";
  return Error::storage(path, "the run folder is in use by " + owner)
      .remedy("stop that run first, or choose another folder with --out");
}

Descriptor open_lock(const std::string& path) {
  Descriptor lock(::open(lock_path(path).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640));
  if (!lock.is_open()) throw system_error(Error::Kind::storage, lock_path(path), "open");
  return lock;
}

struct flock whole_file() {
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return whole;
}

enum class Lock { ours, of_another, unknown };  // unknown: the file system has none

Lock take_lock(const Descriptor& lock) {
  struct flock whole = whole_file();
  if (::fcntl(lock.get(), F_OFD_SETLK, &whole) == 0) return Lock::ours;
  return errno == EAGAIN || errno == EACCES ? Lock::of_another : Lock::unknown;
}

/// Looks at the newest claim again and again until it is clear whether its owner lives.
class Contest {
 public:
  Contest(const std::string& path, const HoldOptions& options) : path_(path), options_(options) {}

  enum class Standing { free, held, unclear };

  Standing look(Lock lock, const std::optional<Claim>& claim) {
    bool has_owner = claim && claim->owner && !claim->is_released;
    if (has_owner && !claim->owner->is_on_host_of(options_.self)) return look_from_afar(*claim);
    if (has_owner && claim->owner->is_alive_here()) return Standing::held;
    if (lock == Lock::ours) return Standing::free;
    // Who has the lock is about to write a claim, or lives where we cannot see its process; a file system without
    // locks may show a claim that is being written.
    bool is_settled = lock == Lock::unknown && (has_owner || !claim || claim->is_released);
    if (is_settled) return Standing::free;
    if (seconds_since(start_) < kSettleSeconds) return Standing::unclear;
    return lock == Lock::unknown ? Standing::free : Standing::held;
  }

 private:
  Standing look_from_afar(const Claim& claim) {
    if (claim.epoch != watched_.epoch) {
      watched_ = claim;
      watched_since_ = Clock::now();
      EC_LOG(warning, "{} is held by {}: waiting up to {} s for a sign of life", path_, claim.owner->describe(),
             options_.lease_seconds);
      return Standing::unclear;
    }
    if (claim.beat != watched_.beat) return Standing::held;
    return seconds_since(watched_since_) < options_.lease_seconds ? Standing::unclear : Standing::free;
  }

  const std::string& path_;
  const HoldOptions& options_;
  Claim watched_;
  Clock::time_point start_ = Clock::now(), watched_since_ = start_;
};

}  // namespace

void refuse_unsafe_folder(const std::string& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) throw system_error(Error::Kind::storage, path, "look at");
  if (status.st_uid != ::geteuid()) {
    throw Error::recipe(path, "RUNDIR_UNSAFE: the run folder belongs to another user")
        .remedy("choose another folder with --out, or accept this one with --trust_dir");
  }
  if ((status.st_mode & S_IWOTH) && !(status.st_mode & S_ISVTX)) {
    throw Error::recipe(path, "RUNDIR_UNSAFE: anyone may write to the run folder")
        .remedy("chmod o-w it, or accept it with --trust_dir");
  }
}

RunFolder RunFolder::hold(const std::string& path, const HoldOptions& options) {
  create_folder(path);
  if (!options.trusted) refuse_unsafe_folder(path);
  make_folders(join_path(path, "lease"));
  RunFolder folder;
  Descriptor lock = open_lock(path);
  Contest contest(path, options);
  for (;; std::this_thread::sleep_for(kLook)) {
    Lock whose = take_lock(lock);
    std::optional<Claim> claim = newest_claim(path);
    Contest::Standing standing = contest.look(whose, claim);
    if (standing == Contest::Standing::held) throw held_by(path, claim);
    if (standing == Contest::Standing::unclear) continue;
    int64_t epoch = claim ? claim->epoch + 1 : 1;
    if (!make_claim(path, epoch, options.self)) continue;
    if (claim && claim->owner && !claim->is_released) folder.taken_over_from_ = claim->owner->describe();
    folder.epoch_ = epoch;
    break;
  }
  folder.path_ = path;
  folder.self_ = options.self;
  folder.lock_ = std::move(lock);
  folder.heartbeat_ = std::make_unique<Heartbeat>(path, folder.epoch_, options.lease_seconds / kBeatsPerLease);
  return folder;
}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : path_(std::exchange(other.path_, "")),
      taken_over_from_(std::move(other.taken_over_from_)),
      self_(std::move(other.self_)),
      epoch_(other.epoch_),
      lock_(std::move(other.lock_)),
      heartbeat_(std::move(other.heartbeat_)) {}

RunFolder::~RunFolder() {
  if (path_.empty()) return;
  heartbeat_.reset();
  // The lock's file stays: removing it would let two runs lock two files of one name.
  try {
    release_claim(path_, epoch_, self_);
  } catch (const Error& error) {
    EC_LOG(warning, "{}", error.what());  // the next run finds that this process is gone
  }
}

std::string holder_of(const std::string& path) {
  std::optional<Claim> claim = newest_claim(path);
  bool has_owner = claim && claim->owner && !claim->is_released;
  Descriptor lock(::open(lock_path(path).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct flock whole = whole_file();
  bool is_locked = lock.is_open() && ::fcntl(lock.get(), F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
  if (!is_locked && !(has_owner && claim->owner->is_alive_here())) return "";
  return has_owner ? claim->owner->describe() : "another run";
}

}  // namespace echelon
