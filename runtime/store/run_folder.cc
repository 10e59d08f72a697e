#include "runtime/store/run_folder.h"

#include <cerrno>
#include <ctime>
#include <optional>
#include <sstream>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/files.h"
#include "cluster/base/json.h"

namespace echelon {

namespace {

constexpr char owner_name[] = "owner.json", lock_name[] = "owner.lock";

/// A file of the system that says 0 as its size; "" when it is not there.
std::string read_system_file(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  char buffer[4096];
  ssize_t got = file.is_open() ? ::read(file.get(), buffer, sizeof buffer) : 0;
  return std::string(buffer, std::max<ssize_t>(got, 0));
}

/// Start of a process in clock ticks since boot; nothing when it is gone or only waits to be buried.
std::optional<int64_t> process_start_ticks(int64_t pid) {
  std::string text = read_system_file(fmt::format("/proc/{}/stat", pid));
  size_t name_end = text.rfind(')');  // The name may hold spaces and brackets.
  if (name_end == std::string::npos) return {};
  std::istringstream fields(text.substr(name_end + 1));
  std::string state, skipped;
  fields >> state;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  int64_t ticks = 0;
  fields >> ticks;
  if (!fields || state == "Z" || state == "X") return {};
  return ticks;
}

std::string this_host() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

std::string this_boot() {
  std::string id = read_system_file("/proc/sys/kernel/random/boot_id");
  return id.substr(0, id.find('\n'));
}

std::string utc_now() {
  std::time_t now = std::time(nullptr);
  std::tm utc;
  ::gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

Json to_json(const RunOwner& owner) {
  return {{"host", owner.host},
          {"boot_id", owner.boot_id},
          {"pid", owner.pid},
          {"process_start", owner.process_start},
          {"started", owner.started}};
}

/// Nothing when there is no such file, or it is damaged: then only the lock counts.
std::optional<RunOwner> read_owner(const std::string& folder) {
  std::string path = join_path(folder, owner_name);
  try {
    Json json = parse_json(read_file(path, Error::Kind::storage, 64 << 10), path, Error::Kind::storage);
    RunOwner owner;
    owner.host = json_string(json, "host", path);
    owner.boot_id = json_string(json, "boot_id", path);
    owner.pid = json_integer(json, "pid", path, 1, INT32_MAX);
    owner.process_start = json_integer(json, "process_start", path, 0, INT64_MAX);
    owner.started = json_string(json, "started", path);
    return owner;
  } catch (const Error&) {
    return {};
  }
}

void create_folder(const std::string& path) {
  make_folders(folder_of(path));
  if (::mkdir(path.c_str(), 0750) == 0) {
    fsync_folder(folder_of(path));
  } else if (errno != EEXIST || !is_folder(path)) {
    throw system_error(Error::Kind::storage, path, "create the run folder");
  }
}

void refuse_unsafe(const std::string& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) throw system_error(Error::Kind::storage, path, "look at");
  if (status.st_uid != ::geteuid()) {
    throw Error::recipe(path, "RUNDIR_UNSAFE: the run folder belongs to another user")
        .remedy("choose another folder with --out");
  }
  if ((status.st_mode & S_IWOTH) && !(status.st_mode & S_ISVTX)) {
    throw Error::recipe(path, "RUNDIR_UNSAFE: anyone may write to the run folder").remedy("chmod o-w it");
  }
}

Error held_by(const std::string& path, const std::optional<RunOwner>& owner) {
  return Error::storage(path, fmt::format("the run folder is in use by {}", owner ? owner->describe() : "another run"))
      .remedy("stop that run first, or choose another folder with --out");
}

Descriptor open_lock(const std::string& path) {
  std::string lock_path = join_path(path, lock_name);
  Descriptor lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640));
  if (!lock.is_open()) throw system_error(Error::Kind::storage, lock_path, "open");
  return lock;
}

/// False when somebody else has it. On file systems without locks everybody gets it, and owner.json decides.
bool take_lock(const Descriptor& lock) {
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  return ::fcntl(lock.get(), F_OFD_SETLK, &whole) == 0 || (errno != EAGAIN && errno != EACCES);
}

}  // namespace

RunOwner RunOwner::this_process() {
  int64_t pid = ::getpid();
  return {this_host(), this_boot(), pid, process_start_ticks(pid).value_or(0), utc_now()};
}

bool RunOwner::is_alive_here() const {
  return host == this_host() && boot_id == this_boot() && process_start_ticks(pid) == process_start;
}

std::string RunOwner::describe() const { return fmt::format("process {} on host {}, since {}", pid, host, started); }

RunFolder RunFolder::hold(const std::string& path, bool trusted) {
  create_folder(path);
  if (!trusted) refuse_unsafe(path);
  RunFolder folder;
  Descriptor lock = open_lock(path);
  bool is_ours = take_lock(lock);
  std::optional<RunOwner> owner = read_owner(path);
  if (!is_ours || (owner && owner->is_alive_here())) throw held_by(path, owner);
  if (owner) folder.taken_over_from_ = owner->describe();
  write_file_atomically(join_path(path, owner_name), dump_json(to_json(RunOwner::this_process()), 1) + "\n");
  folder.path_ = path;
  folder.lock_ = std::move(lock);
  return folder;
}

RunFolder::RunFolder(RunFolder&& other) noexcept
    : path_(std::exchange(other.path_, "")),
      taken_over_from_(std::move(other.taken_over_from_)),
      lock_(std::move(other.lock_)) {}

RunFolder::~RunFolder() {
  // The lock's file stays: removing it would let two runs lock two files of one name.
  if (!path_.empty()) ::unlink(join_path(path_, owner_name).c_str());
}

std::string holder_of(const std::string& path) {
  std::optional<RunOwner> owner = read_owner(path);
  Descriptor lock(::open(join_path(path, lock_name).c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  struct flock whole = {};
  whole.l_type = F_WRLCK;
  whole.l_whence = SEEK_SET;
  bool is_locked = lock.is_open() && ::fcntl(lock.get(), F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
  if (!is_locked && !(owner && owner->is_alive_here())) return "";
  return owner ? owner->describe() : "another run";
}

}  // namespace echelon
