#include "comm/ledger/ledger.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>
#include <memory>

#include "cluster/base/error.h"

namespace echelon {

namespace {

constexpr char kMagic[8] = {'E', 'C', 'L', 'E', 'D', 'G', 'E', '1'};

/// One entry on disk, 256 bytes. `number` counts entries from 1 and is written last: a record whose number does not fit
/// its place was being written when the rank died.
struct Record {
  std::atomic<int64_t> number;
  int64_t sequence, count, bytes, entered_ns;
  std::atomic<int64_t> left_ns;
  char op[16], dtype[16], group[32], name[144];
};
static_assert(sizeof(Record) == 256);

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

template <size_t size>
void copy_text(char (&to)[size], std::string_view from) {
  size_t length = std::min(from.size(), size - 1);
  std::memcpy(to, from.data(), length);
  to[length] = '\0';
}

template <size_t size>
std::string text_of(const char (&from)[size]) {
  return printable({from, strnlen(from, size)});
}

LedgerEntry entry_of(const Record& record) {
  return {.sequence = record.sequence,
          .group = text_of(record.group),
          .op = text_of(record.op),
          .name = text_of(record.name),
          .dtype = text_of(record.dtype),
          .count = record.count,
          .bytes = record.bytes,
          .entered_seconds = static_cast<double>(record.entered_ns) * 1e-9,
          .left_seconds = static_cast<double>(record.left_ns.load()) * 1e-9};
}

std::string clock_time(double seconds) {
  auto whole = static_cast<std::time_t>(seconds);
  std::tm parts{};
  localtime_r(&whole, &parts);
  char text[16];
  std::strftime(text, sizeof text, "%H:%M:%S", &parts);
  return text;
}

/// Closes a file descriptor at the end of its scope.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

/// Fills `size` bytes from the file; false when it ends before or cannot be read.
bool read_whole(int fd, void* to, size_t size) {
  auto* next = static_cast<std::byte*>(to);
  while (size > 0) {
    ssize_t got = ::read(fd, next, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    next += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

Error file_error(const std::string& path, std::string_view action) {
  return Error::storage(path, fmt::format("cannot {} the ledger: {}", action, std::strerror(errno)));
}

}  // namespace

struct LedgerFile {
  char magic[8];
  int64_t capacity;
  std::atomic<int64_t> written;  ///< entries so far; the last `capacity` of them are here
  char reserved[232];
  Record records[Ledger::capacity];

  Record& record(int64_t number) { return records[(number - 1) % Ledger::capacity]; }

  std::vector<LedgerEntry> last(int64_t entries) const {
    std::vector<LedgerEntry> result;
    int64_t end = written.load();
    int64_t kept = std::clamp<int64_t>(entries, 0, std::min(end, Ledger::capacity));
    for (int64_t back = kept - 1; back >= 0; --back) {
      const Record& record = records[(end - back - 1) % Ledger::capacity];
      if (record.number.load() == end - back) result.push_back(entry_of(record));
    }
    return result;
  }
};

Ledger::Ledger(const std::string& path) {
  void* memory = MAP_FAILED;
  if (path.empty()) {
    memory = ::mmap(nullptr, sizeof(LedgerFile), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  } else {
    Descriptor file{::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640)};
    if (file.fd < 0) throw file_error(path, "make");
    // Blocks are reserved now: a full disk is an error here, and not a SIGBUS in the middle of a run.
    if (int error = ::posix_fallocate(file.fd, 0, sizeof(LedgerFile)); error != 0) {
      errno = error;
      throw file_error(path, "reserve");
    }
    memory = ::mmap(nullptr, sizeof(LedgerFile), PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);
  }
  if (memory == MAP_FAILED) throw file_error(path, "map");
  file_ = static_cast<LedgerFile*>(memory);
  std::memcpy(file_->magic, kMagic, sizeof kMagic);
  file_->capacity = capacity;
}

Ledger::~Ledger() { ::munmap(file_, sizeof(LedgerFile)); }

int64_t Ledger::enter(const Entering& entering) {
  int64_t number = file_->written.load(std::memory_order_relaxed) + 1;
  Record& record = file_->record(number);
  record.number.store(0, std::memory_order_relaxed);
  std::atomic_signal_fence(std::memory_order_seq_cst);
  record.sequence = entering.sequence;
  record.count = entering.count;
  record.bytes = entering.bytes;
  record.entered_ns = now_ns();
  record.left_ns.store(0, std::memory_order_relaxed);
  copy_text(record.op, entering.op);
  copy_text(record.dtype, entering.dtype);
  copy_text(record.group, entering.group);
  copy_text(record.name, entering.name);
  record.number.store(number, std::memory_order_release);
  file_->written.store(number, std::memory_order_release);
  return number;
}

void Ledger::leave(int64_t ticket) {
  Record& record = file_->record(ticket);
  if (record.number.load(std::memory_order_relaxed) != ticket) return;
  int64_t inside = 0;
  record.left_ns.compare_exchange_strong(inside, now_ns(), std::memory_order_release, std::memory_order_relaxed);
}

int64_t Ledger::newest() const { return file_->written.load(std::memory_order_relaxed); }

std::vector<LedgerEntry> Ledger::last(int64_t entries) const { return file_->last(entries); }

std::string LedgerEntry::text() const {
  std::string what = fmt::format("{} \"{}\" of {} {} in {} (number {})", op, name, count, dtype, group, sequence);
  if (left_seconds == 0) return what + ", inside since " + clock_time(entered_seconds);
  return what + ", left at " + clock_time(left_seconds);
}

std::vector<LedgerEntry> read_ledger(const std::string& path, int64_t entries) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) throw file_error(path, "open");
  // Read, not mapped: a file that is cut short while we look would otherwise be a SIGBUS.
  auto ledger = std::make_unique<LedgerFile>();
  if (!read_whole(file.fd, ledger.get(), sizeof(LedgerFile)) ||
      std::memcmp(ledger->magic, kMagic, sizeof kMagic) != 0 || ledger->capacity != Ledger::capacity ||
      ledger->written.load() < 0) {
    throw Error::storage(path, "is not a ledger of collectives");
  }
  return ledger->last(entries);
}

}  // namespace echelon
