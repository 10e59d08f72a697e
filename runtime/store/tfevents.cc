#include "runtime/store/tfevents.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "cluster/base/files.h"
#include "cluster/base/log.h"
#include "runtime/store/crc32c.h"

namespace echelon {

namespace {

template <class T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

// Protobuf's wire format, for the handful of fields that a scalar needs.
std::string varint(uint64_t value) {
  std::string text;
  for (; value >= 0x80; value >>= 7) text += static_cast<char>(value | 0x80);
  return text + static_cast<char>(value);
}

std::string field_varint(int number, uint64_t value) { return varint(number << 3) + varint(value); }
std::string field_double(int number, double value) { return varint(number << 3 | 1) + raw(value); }
std::string field_float(int number, float value) { return varint(number << 3 | 5) + raw(value); }
std::string field_bytes(int number, const std::string& value) {
  return varint(number << 3 | 2) + varint(value.size()) + value;
}

/// Event: wall_time = 1, step = 2 (0 is not written), file_version = 3, summary = 5, session_log = 7.
std::string event(double wall_time, int64_t step, const std::string& content) {
  return field_double(1, wall_time) + (step == 0 ? "" : field_varint(2, step)) + content;
}

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

constexpr std::chrono::seconds flush_interval(5);

}  // namespace

std::string tfevents_record(std::string_view payload) {
  std::string length = raw<uint64_t>(payload.size());
  return length + raw(masked_crc32c(length)) + std::string(payload) + raw(masked_crc32c(payload));
}

std::string tfevents_version(double wall_time) {
  return tfevents_record(event(wall_time, 0, field_bytes(3, "brain.Event:2")));
}

std::string tfevents_scalar(const std::string& tag, float value, int64_t step, double wall_time) {
  std::string summary = field_bytes(1, field_bytes(1, tag) + field_float(2, value));
  return tfevents_record(event(wall_time, step, field_bytes(5, summary)));
}

std::string tfevents_start(int64_t step, double wall_time) {
  return tfevents_record(event(wall_time, step, field_bytes(7, field_varint(1, 1))));
}

TensorBoardWriter::TensorBoardWriter(const std::string& folder, int64_t first_step) {
  make_folders(folder);
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  double now = seconds_since_1970();
  for (int number = 0; !file_.is_open(); ++number) {
    path_ = join_path(folder, fmt::format("events.out.tfevents.{:010}.{}.{}.{}", static_cast<int64_t>(now), host,
                                          ::getpid(), number));
    file_ = Descriptor(::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666));
    if (!file_.is_open() && errno != EEXIST) throw system_error(Error::Kind::storage, path_, "create");
  }
  pending_ = tfevents_version(now) + tfevents_start(first_step, now);
  flush();
}

TensorBoardWriter::~TensorBoardWriter() {
  if (!file_.is_open()) return;
  try {
    flush();
  } catch (const Error& error) {
    EC_LOG(warning, "{}", error.what());
  }
}

void TensorBoardWriter::scalar(const std::string& tag, double value, int64_t step, double wall_time) {
  pending_ += tfevents_scalar(tag, static_cast<float>(value), step, wall_time == 0 ? seconds_since_1970() : wall_time);
  if (std::chrono::steady_clock::now() - flushed_ >= flush_interval) flush();
}

void TensorBoardWriter::flush() {
  write_at(file_, pending_.data(), pending_.size(), written_, path_);
  written_ += pending_.size();
  pending_.clear();
  flushed_ = std::chrono::steady_clock::now();
}

}  // namespace echelon
