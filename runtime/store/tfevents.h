// Curves for TensorBoard.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "cluster/base/descriptor.h"

namespace echelon {

/// Record = length, its checksum, payload, its checksum; the payload is a `tensorflow.Event`.
std::string tfevents_record(std::string_view payload);
std::string tfevents_version(double wall_time);
std::string tfevents_scalar(const std::string& tag, float value, int64_t step, double wall_time);
/// Says that a run begins (again) at `step`: TensorBoard then drops what older files hold from that step on.
std::string tfevents_start(int64_t step, double wall_time);

/// Writes scalars to a new event file in a folder (created if need be). Flushed every few seconds and when destroyed.
class TensorBoardWriter {
 public:
  /// `first_step`: of a resumed run, the step after its checkpoint. Errors: Error::storage.
  TensorBoardWriter(const std::string& folder, int64_t first_step);
  TensorBoardWriter(TensorBoardWriter&&) noexcept = default;
  ~TensorBoardWriter();

  /// `wall_time`: seconds since 1970, now when 0. Errors: Error::storage.
  void scalar(const std::string& tag, double value, int64_t step, double wall_time = 0);
  void flush();
  const std::string& path() const { return path_; }

 private:
  std::string path_, pending_;
  Descriptor file_;
  uint64_t written_ = 0;
  std::chrono::steady_clock::time_point flushed_;
};

}  // namespace echelon
