// Writes one rank's files of a checkpoint. No tensors and no collectives: any thread may do it.
#pragma once

#include <string>
#include <vector>

#include "runtime/checkpoint/shard_plan.h"
#include "runtime/store/hash.h"

namespace echelon {

class ShardFiles {
 public:
  /// Creates the file of tensors in `folder`. Errors, here and below: Error::storage.
  ShardFiles(const std::string& folder, const ShardPlan& plan);

  void write(const std::string& name, const void* bytes, size_t size, size_t offset_in_tensor = 0) {
    writer_.write(name, bytes, size, offset_in_tensor);
  }
  /// Makes the files durable and hashes them: the votes of this rank.
  std::vector<FileRecord> finish();

 private:
  std::string folder_;
  const ShardPlan& plan_;
  SafetensorsWriter writer_;
};

}  // namespace echelon
