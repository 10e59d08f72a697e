// The power goes: an ext4 on a loop device is shut down without writing its journal out, and mounted again.
#include <chrono>
#include <csignal>
#include <fstream>
#include <random>
#include <thread>

#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/store/faults/trial.h"

namespace echelon {
namespace {

constexpr unsigned long ext4_shutdown = _IOR('X', 125, uint32_t);
constexpr uint32_t without_flushing_the_log = 2;
constexpr int64_t image_bytes = 16 << 20;

std::string reason() { return system_error(Error::Kind::storage, "", "do it").what(); }

int run_program(const std::vector<std::string>& words) {
  Child program([&] {
    std::vector<char*> arguments;
    for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  });
  return program.wait();
}

/// A file system of its own, seen by this process only, gone with it.
class Disk {
 public:
  Disk() : folder_(memory_folder()), mount_(folder_.at("mount")) {
    demand(::unshare(CLONE_NEWNS) == 0, "no mount namespace: " + reason());
    demand(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0, "no private mounts: " + reason());
    std::ofstream(folder_.at("image")).close();
    std::filesystem::resize_file(folder_.at("image"), image_bytes);
    demand(run_program({"mkfs.ext4", "-q", folder_.at("image")}) == 0, "mkfs.ext4 does not run");
    attach();
    make_folders(mount_);
    mount();
  }
  ~Disk() { unmount(); }

  const std::string& path() const { return mount_; }
  /// Everything that was not written out is lost; later calls fail.
  void cut() const {
    Descriptor root(::open(mount_.c_str(), O_RDONLY));
    uint32_t how = without_flushing_the_log;
    demand(::ioctl(root.get(), ext4_shutdown, &how) == 0, "no shutdown: " + reason());
  }
  void start_again() {
    unmount();
    mount();
  }

 private:
  void attach() {
    Descriptor control(::open("/dev/loop-control", O_RDWR));
    int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    demand(number >= 0, "no loop device: " + reason());
    device_ = fmt::format("/dev/loop{}", number);
    loop_ = Descriptor(::open(device_.c_str(), O_RDWR | O_CLOEXEC));
    Descriptor image(::open(folder_.at("image").c_str(), O_RDWR));
    struct loop_config config = {.fd = static_cast<__u32>(image.get()), .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
    demand(::ioctl(loop_.get(), LOOP_CONFIGURE, &config) == 0, "no loop device: " + reason());
  }
  void mount() { demand(::mount(device_.c_str(), mount_.c_str(), "ext4", 0, nullptr) == 0, "no mount: " + reason()); }
  void unmount() const {
    while (::umount(mount_.c_str()) != 0 && errno == EBUSY) std::this_thread::yield();
  }

  TemporaryFolder folder_;
  std::string mount_, device_;
  Descriptor loop_;
};

std::string why_no_disk() {
  Child probe([] { Disk().cut(); });
  return probe.wait() == 0 ? "" : "root, loop devices, mkfs.ext4 and ext4's shutdown are needed";
}

/// Steps 1 and 2 are committed; what follows may be cut short.
void prepare(const CheckpointStore& store) {
  for (int64_t step : {1, 2}) save_step(store, step);
}

struct Progress {
  int64_t committed = 2;  ///< by the last commit that came back
};

/// Saves until the power goes, which every call tells by failing.
void save_and_retire(const CheckpointStore& store, int64_t step, Progress& progress) {
  save_step(store, step);
  progress.committed = step;
  store.retire(2);
}

/// What came back as committed is there, whole; the next start goes on from it or from the one that was under way.
void demand_survival(Disk& disk, const CheckpointStore& store, const Progress& progress) {
  disk.start_again();
  demand_whole_steps(store, {progress.committed});
  int64_t newest = start_again(store);
  demand(newest == progress.committed || newest == progress.committed + 1,
         fmt::format("{} after {} was committed", newest, progress.committed));
}

/// The error that a save ends with once the power is off.
void until_the_cut(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    demand(error.kind() == Error::Kind::storage, error.what());
  }
}

void cut_at_call(int64_t call) {
  Disk disk;
  CheckpointStore store(disk.path() + "/run");
  prepare(store);
  Progress progress;
  bool is_cut = false;
  until_the_cut([&] {
    auto cut = [&] {
      disk.cut();
      is_cut = true;
    };
    run_with_strike(call, cut, [&] { save_and_retire(store, 3, progress); });
  });
  demand(is_cut, "the power did not go");
  demand_survival(disk, store, progress);
}

void cut_at_random(int64_t trial) {
  Disk disk;
  CheckpointStore store(disk.path() + "/run");
  prepare(store);
  Progress progress;
  std::jthread power([&] {
    std::this_thread::sleep_for(std::chrono::microseconds(std::mt19937(trial)() % 20000));
    disk.cut();
  });
  until_the_cut([&] {
    for (int64_t step = 3;; ++step) save_and_retire(store, step, progress);
  });
  power.join();
  demand_survival(disk, store, progress);
}

int64_t changes_of_a_save() {
  TemporaryFolder folder(memory_folder());
  CheckpointStore store(folder.path());
  prepare(store);
  Progress progress;
  return count_changes([&] { save_and_retire(store, 3, progress); });
}

}  // namespace

FaultRow cuts_at_calls() { return {.last = changes_of_a_save, .run = cut_at_call, .obstacle = why_no_disk}; }

FaultRow random_cuts() { return {.run = cut_at_random, .obstacle = why_no_disk}; }

}  // namespace echelon
