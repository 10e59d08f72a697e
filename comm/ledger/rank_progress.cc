#include "comm/ledger/rank_progress.h"

#include <array>
#include <atomic>
#include <cerrno>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cluster/base/descriptor.h"

namespace echelon {

namespace {

constexpr int64_t kMagic = 0x32474f5250434531;  // "1ECPROG2"
constexpr std::array<std::string_view, 7> kNames = {"start",    "input", "compute", "update",
                                                    "evaluate", "save",  "finish"};

}  // namespace

struct RankProgress::Page {
  std::atomic<int64_t> magic, phase, step, beats, first_step;
};

std::string_view name_of(Phase phase) { return kNames.at(static_cast<size_t>(phase)); }

RankProgress::RankProgress(const std::string& path) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS;
  Descriptor file;
  if (!path.empty()) {
    file = Descriptor(::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640));
    if (!file.is_open()) throw system_error(Error::Kind::storage, path, "create");
    // Blocks are reserved now: a full disk is an error here, and not a SIGBUS in the middle of a run.
    if (int error = ::posix_fallocate(file.get(), 0, sizeof(Page)); error != 0) {
      errno = error;
      throw system_error(Error::Kind::storage, path, "reserve");
    }
    flags = MAP_SHARED;
  }
  void* memory = ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, flags, file.get(), 0);
  if (memory == MAP_FAILED) throw system_error(Error::Kind::storage, path, "map");
  page_ = static_cast<Page*>(memory);
  page_->magic.store(kMagic, std::memory_order_release);
}

RankProgress::~RankProgress() { ::munmap(page_, sizeof(Page)); }

void RankProgress::enter(Phase phase, int64_t step) {
  page_->phase.store(static_cast<int64_t>(phase), std::memory_order_relaxed);
  page_->step.store(step, std::memory_order_relaxed);
  if (page_->first_step.load(std::memory_order_relaxed) == 0)
    page_->first_step.store(step, std::memory_order_relaxed);
  beat();
}

void RankProgress::beat() {
  page_->beats.store(page_->beats.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

std::optional<ProgressState> read_progress(const std::string& path) {
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  int64_t words[5] = {};
  if (!file.is_open() || ::read(file.get(), words, sizeof words) != sizeof words || words[0] != kMagic) return {};
  if (words[1] < 0 || words[1] >= std::ssize(kNames)) return {};
  return ProgressState{static_cast<Phase>(words[1]), words[2], words[3], words[4]};
}

}  // namespace echelon
