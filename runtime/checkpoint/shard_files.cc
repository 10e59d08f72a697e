#include "runtime/checkpoint/shard_files.h"

#include "cluster/base/files.h"
#include "runtime/checkpoint/names.h"

namespace echelon {

ShardFiles::ShardFiles(const std::string& folder, const ShardPlan& plan)
    : folder_(folder),
      plan_(plan),
      writer_(join_path(folder, plan.file), plan.tensors, plan.metadata, Error::Kind::storage) {}

std::vector<FileRecord> ShardFiles::finish() {
  writer_.finish();
  std::vector<FileRecord> votes{hash_file(join_path(folder_, plan_.file), plan_.writer)};
  if (!plan_.state.empty()) {
    write_file_atomically(join_path(folder_, kStateFile), plan_.state);
    votes.push_back(hash_file(join_path(folder_, kStateFile), plan_.writer));
  }
  fsync_folder(folder_);
  return votes;
}

}  // namespace echelon
