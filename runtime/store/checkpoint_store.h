// Checkpoints of a run: staged, voted, committed by one rename, found again, verified, retired.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cluster/base/safetensors.h"
#include "runtime/store/manifest.h"

namespace echelon {

/// "step-00000050".
std::string step_name(int64_t step);
/// The step of such a name; nothing for any other.
std::optional<int64_t> step_of_name(std::string_view name);

/// A committed checkpoint whose manifest and file sizes are right; its bytes are verified when they are read.
struct Checkpoint {
  int64_t step = 0;
  std::string folder;
  Manifest manifest;
  /// Newer steps that were passed over, each with its reason; empty when this is the newest.
  std::vector<std::string> passed_over;

  std::string path(const std::string& file) const { return join_path(folder, file); }
};

/// Reads the manifest and compares the folder with it: names both ways, sizes. Errors: Error::storage.
Checkpoint open_checkpoint(const std::string& folder);

struct VerifyOptions {
  bool from_disk = false;  ///< what the system holds of a file in memory is dropped before it is read, and behind
  std::function<bool()> given_up;  ///< asked before each tile; true: the rest is not read
};

/// Hashes every byte. Gives one sentence for each tile that is damaged: file, tile, byte range, writer, and the tensors
/// in it where the header is whole. Empty: whole. Errors: Error::storage when a file cannot be opened or read.
std::vector<std::string> find_damage(const Checkpoint& checkpoint, const VerifyOptions& options = {});

/// One file of a checkpoint; tiles are verified when first touched. Safe from several threads.
class CheckpointFile {
 public:
  /// Verifies the header's tiles before parsing. Errors: Error::storage naming tile, file and writer.
  static CheckpointFile open(const Checkpoint& checkpoint, const std::string& name);
  CheckpointFile(CheckpointFile&&) noexcept;
  ~CheckpointFile();

  const SafetensorsFile& tensors() const { return *tensors_; }
  /// Bytes [begin, begin + size) of the tensor; the tiles that hold them are verified first.
  const std::byte* slice(const TensorEntry& entry, uint64_t begin, uint64_t size) const;

 private:
  struct Tiles;
  CheckpointFile();
  std::unique_ptr<Tiles> tiles_;
  std::optional<SafetensorsFile> tensors_;
};

/// The checkpoints of one run folder: `checkpoints/step-N/` (committed), `inflight/` (being written), `trash/` (being
/// removed), `damaged/` (set aside). A save, with the collective parts left to the caller:
///
///     rank 0:  folder = store.begin(step, bytes);            // then tell the ranks
///     each:    write files into it; vote = {hash_file(path), …}; fsync_folder(folder)
///     rank 0:  votes complete ? store.commit(folder, step, votes, layout) : store.abandon(folder);
///     rank 0:  store.retire(keep);
///
/// Only the holder of the run folder calls what changes something; reading is free to all. A holder says which claim it
/// acts under: once a higher one exists, it changes nothing any more.
class CheckpointStore {
 public:
  explicit CheckpointStore(std::string run_folder);
  /// The claim (lease.h) that commits and removals are made under; 0: none, nothing is compared.
  void act_under(int64_t epoch) { epoch_ = epoch; }

  /// A new staging folder. Errors: Error::storage, also when less than `bytes` and 5 % are free.
  std::string begin(int64_t step, int64_t bytes) const;
  /// Checks that the folder holds what was voted, writes the manifest and renames the folder to its step: that rename
  /// is the commit. A damaged checkpoint of this step is set aside first. Errors: Error::storage, also when another run
  /// has taken the folder over; nothing is then committed.
  Manifest commit(const std::string& staging, int64_t step, std::vector<FileRecord> votes,
                  const std::string& layout) const;
  /// Removes a staging folder.
  void abandon(const std::string& staging) const;

  /// Committed steps, rising; whole or not.
  std::vector<int64_t> steps() const;
  /// The highest step, below `below` if given, whose manifest and sizes are right; nothing when there are no steps.
  /// `passed_over`: reasons for newer ones that the caller had before. Errors: Error::storage when there are steps and
  /// none is right: a run never starts again from 0 by itself.
  std::optional<Checkpoint> recover(std::optional<int64_t> below = {}, std::vector<std::string> passed_over = {}) const;
  std::string folder(int64_t step) const;

  /// Moves a step to `damaged/`, for people to look at; the way to write that step again. Gives its new place.
  std::string set_aside(int64_t step) const;
  /// Removes steps older than the newest `keep` (at least 2) right ones, except `pinned`. Gives those removed.
  std::vector<int64_t> retire(int64_t keep, const std::vector<int64_t>& pinned = {}) const;
  /// Removes what dead saves and removals left behind. Whoever still writes there, frozen until now, finds nothing to
  /// commit: what is in flight leaves its place by a rename before it is removed.
  void clean() const;

 private:
  bool is_right(int64_t step) const;
  std::string previous_root(int64_t step) const;
  void make_way(int64_t step) const;
  void discard(const std::string& folder) const;

  std::string run_folder_, checkpoints_, inflight_, trash_;
  int64_t epoch_ = 0;
};

}  // namespace echelon
