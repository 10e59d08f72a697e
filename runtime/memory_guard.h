// Whether masters and optimizer state are still what the last update made of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/optimizer.h"

namespace echelon {

/// Between two updates nothing writes to what a rank owns. A hash of some tiles of it is kept behind an update and
/// compared before the next one, other tiles each time: all have had their turn after 1 / share updates. Memory that
/// changed by itself in a guarded tile is found; in another one it is not, and the next update makes it look right.
/// Memory of a GPU is not guarded: it corrects itself.
class MemoryGuard {
 public:
  /// Guards `share` of what `owned`, which outlives it, holds, and at least a tile; 0: nothing.
  MemoryGuard(std::vector<Owned>& owned, double share, int rank);
  /// What was kept is void: others have written there.
  void forget() { guarded_.clear(); }
  /// Behind the update of `step`.
  void keep(int64_t step);
  /// Before anything else is made of it. Errors: Error::comm that names tensor, elements, rank and step: the job may go
  /// on from its last checkpoint.
  void check() const;

 private:
  /// A master or a moment of one shard.
  struct Memory {
    Owned* owned;
    std::string name;    // of the moment, with a dot in front; empty: master
    int64_t first_tile;  // counted through all memories
  };
  struct Tile {
    const Memory* memory;
    int64_t begin, length;  // elements of the flat shard
    std::string hash;
  };
  Tile tile(int64_t number) const;
  [[noreturn]] void report(const Tile& tile) const;

  std::vector<Memory> memories_;
  std::vector<Tile> guarded_;
  int64_t tiles_ = 0, each_time_ = 0, next_ = 0, step_ = 0;
  int rank_;
};

}  // namespace echelon
