// metrics.jsonl: one object a line, one line a step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/base/descriptor.h"
#include "cluster/base/json.h"

namespace echelon {

/// Appends to `metrics.jsonl`. Doubles have 17 digits: equal bits are equal text. What is not finite is written as
/// null.
class MetricsFile {
 public:
  /// Opens for a run that goes on after `last_step` (0: from the start): lines of later steps are dropped, and so is a
  /// last line that a crash tore. Errors: Error::storage, also for a damaged line before the last, by number.
  static MetricsFile open(const std::string& path, int64_t last_step);

  /// One line, in one write. Errors: Error::storage; Error::internal when `line` has no "step".
  void append(const Json& line);
  /// Makes all lines durable: to be called before a checkpoint of their step is committed.
  void sync();

 private:
  std::string path_;
  Descriptor file_;
  uint64_t size_ = 0;
};

/// All whole lines. Errors: Error::storage for a missing file, and for a damaged line before the last.
std::vector<Json> read_metrics(const std::string& path);

struct TakenStep {
  int64_t step;
  double loss, gradient_norm;
};
/// The steps of the file that were not left out. Errors: as of read_metrics.
std::vector<TakenStep> taken_steps(const std::string& path);

/// Steps at the end of the file, one behind the other, that were left out. Errors: as of read_metrics.
int64_t skipped_at_end(const std::string& path);

}  // namespace echelon
