// Small checkpoints for tests.
#pragma once

#include <string>
#include <vector>

#include "runtime/store/checkpoint_store.h"
#include "tests/cluster/testing.h"

namespace echelon {

/// Writes one rank's file of a step: a tensor "w" whose bytes all equal `value`.
inline FileRecord write_rank_file(const std::string& staging, int rank, char value, int64_t bytes = 1000) {
  std::string path = join_path(staging, fmt::format("shard-00001-model-{:05}-of-00002.safetensors", rank + 1));
  SafetensorsWriter writer(path, {{"w", DType::U8, {bytes}}}, {{"format", "pt"}});
  writer.write("w", std::string(bytes, value).data(), bytes);
  writer.finish();
  return hash_file(path, fmt::format("rank {}", rank));
}

/// What the bytes of a rank's tensor equal in such a step.
inline char value_of(int64_t step, int rank) { return static_cast<char>(step + rank); }

/// Writes two ranks' files of a step and commits them.
inline Manifest commit_step(const CheckpointStore& store, const std::string& staging, int64_t step, int64_t bytes) {
  std::vector<FileRecord> votes;
  for (int rank : {0, 1}) votes.push_back(write_rank_file(staging, rank, value_of(step, rank), bytes));
  return store.commit(staging, step, votes, "dp=2 zero=3");
}

/// A whole save of two ranks.
inline Manifest save_step(const CheckpointStore& store, int64_t step, int64_t bytes = 1000) {
  return commit_step(store, store.begin(step, 2 * bytes), step, bytes);
}

inline void flip_bit(const std::string& path, size_t bit) {
  std::string bytes = contents(path);
  bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
  write_file_atomically(path, bytes);
}

}  // namespace echelon
