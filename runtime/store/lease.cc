#include "runtime/store/lease.h"

#include <charconv>
#include <chrono>
#include <condition_variable>
#include <ctime>
#include <mutex>
#include <sstream>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/descriptor.h"
#include "cluster/base/files.h"
#include "cluster/base/json.h"

namespace echelon {

namespace {

constexpr std::string_view kPrefix = "epoch-", kSuffix = ".json";

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

std::string claim_path(const std::string& run_folder, int64_t epoch) {
  return join_path(join_path(run_folder, "lease"), fmt::format("{}{:08}{}", kPrefix, epoch, kSuffix));
}

/// 0 for a name that is no claim's.
int64_t epoch_of_name(std::string_view name) {
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return 0;
  name.remove_prefix(kPrefix.size());
  name.remove_suffix(kSuffix.size());
  int64_t epoch = 0;
  auto parsed = std::from_chars(name.data(), name.data() + name.size(), epoch);
  return parsed.ec == std::errc() && parsed.ptr == name.data() + name.size() ? epoch : 0;
}

std::vector<int64_t> epochs_of(const std::string& run_folder) {
  std::string folder = join_path(run_folder, "lease");
  if (!is_folder(folder)) return {};
  std::vector<int64_t> epochs;
  for (const std::string& name : list_folder(folder)) {
    if (int64_t epoch = epoch_of_name(name)) epochs.push_back(epoch);
  }
  return epochs;
}

int64_t newest_epoch(const std::string& run_folder) {
  std::vector<int64_t> epochs = epochs_of(run_folder);
  return epochs.empty() ? 0 : *std::max_element(epochs.begin(), epochs.end());
}

std::string claim_text(int64_t epoch, const RunOwner& owner, bool is_released) {
  Json json{{"epoch", epoch},
            {"host", owner.host},
            {"boot_id", owner.boot_id},
            {"pid", owner.pid},
            {"process_start", owner.process_start},
            {"started", owner.started},
            {"job", owner.job},
            {"released", is_released}};
  return dump_json(json, 1) + "\n";
}

void read_owner(const std::string& path, Claim& claim) {
  try {
    Json json = parse_json(read_file(path, Error::Kind::storage, 64 << 10), path, Error::Kind::storage);
    RunOwner owner;
    owner.host = json_string(json, "host", path);
    owner.boot_id = json_string(json, "boot_id", path);
    owner.pid = json_integer(json, "pid", path, 1, INT32_MAX);
    owner.process_start = json_integer(json, "process_start", path, 0, INT64_MAX);
    owner.started = json_string(json, "started", path);
    owner.job = json_string(json, "job", path);
    claim.is_released = json_bool(json, "released", path);
    claim.owner = owner;
  } catch (const Error&) {
    claim.owner.reset();
  }
}

/// Opened first: network file systems look for a newer time of change when a file is opened.
int64_t beat_of(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  struct stat status;
  if (!file.is_open() || ::fstat(file.get(), &status) != 0) return 0;
  return status.st_mtim.tv_sec * 1'000'000'000 + status.st_mtim.tv_nsec;
}

void forget_claims_before(const std::string& run_folder, int64_t epoch) {
  for (int64_t older : epochs_of(run_folder)) {
    if (older < epoch) ::unlink(claim_path(run_folder, older).c_str());
  }
}

}  // namespace

RunOwner RunOwner::this_process(const std::string& job) {
  int64_t pid = ::getpid();
  return {this_host(), this_boot(), pid, process_start_ticks(pid).value_or(0), utc_now(), job};
}

bool RunOwner::is_alive_here() const {
  return host == this_host() && boot_id == this_boot() && process_start_ticks(pid) == process_start;
}

std::string RunOwner::describe() const {
  std::string of_job = job.empty() ? "" : fmt::format(" (job {})", printable(job));
  return fmt::format("process {} on host {}{}, since {}", pid, printable(host), of_job, printable(started));
}

std::optional<Claim> newest_claim(const std::string& run_folder) {
  Claim claim{.epoch = newest_epoch(run_folder)};
  if (claim.epoch == 0) return {};
  std::string path = claim_path(run_folder, claim.epoch);
  read_owner(path, claim);
  claim.beat = beat_of(path);
  return claim;
}

bool make_claim(const std::string& run_folder, int64_t epoch, const RunOwner& owner) {
  std::string path = claim_path(run_folder, epoch), text = claim_text(epoch, owner, false);
  Descriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640));
  if (!file.is_open() && errno == EEXIST) return false;
  if (!file.is_open()) throw system_error(Error::Kind::storage, path, "create");
  write_at(file, text.data(), text.size(), 0, path);
  sync_file(file, path);
  fsync_folder(folder_of(path));
  // Ours may be a number that others had, gave up and forgot while we slept.
  if (newest_epoch(run_folder) > epoch) {
    ::unlink(path.c_str());
    return false;
  }
  forget_claims_before(run_folder, epoch);
  return true;
}

void release_claim(const std::string& run_folder, int64_t epoch, const RunOwner& owner) {
  if (newest_epoch(run_folder) == epoch)
    write_file_atomically(claim_path(run_folder, epoch), claim_text(epoch, owner, true));
}

void check_claim(const std::string& run_folder, int64_t epoch) {
  if (newest_epoch(run_folder) <= epoch) return;
  std::optional<Claim> claim = newest_claim(run_folder);
  throw Error::storage(run_folder, fmt::format("the run folder was taken over by {}",
                                               claim && claim->owner ? claim->owner->describe() : "another run"))
      .expected(fmt::format("epoch {}, as when this run took it", epoch))
      .remedy("that run goes on; this one has stopped without writing");
}

struct Heartbeat::State {
  std::mutex mutex;
  std::condition_variable_any stopped;
  Descriptor file;
  std::jthread thread;  // last: stopped and joined before what it uses goes
};

Heartbeat::Heartbeat(const std::string& run_folder, int64_t epoch, double interval_seconds)
    : state_(std::make_unique<State>()) {
  state_->file = Descriptor(::open(claim_path(run_folder, epoch).c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  state_->thread = std::jthread([state = state_.get(), interval_seconds](std::stop_token stop) {
    std::unique_lock lock(state->mutex);
    auto interval = std::chrono::duration<double>(interval_seconds);
    while (!state->stopped.wait_for(lock, stop, interval, [&] { return stop.stop_requested(); })) {
      ::futimens(state->file.get(), nullptr);
    }
  });
}

Heartbeat::~Heartbeat() = default;

}  // namespace echelon
