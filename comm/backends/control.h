// The page through which the ranks of one node meet: barrier, signatures, and notes to each other.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "comm/backends/membership.h"
#include "comm/backends/node_memory.h"
#include "comm/backends/signature.h"

namespace echelon {

/// What a rank tells the others when it enters a collective.
struct Note {
  Signature signature;
  WindowTable::Place source, target;   ///< where its tensors lie
  bool staged;                         ///< it has put its first chunk into the staging area
  bool failed;                         ///< it cannot go on (allocate, split)
  int32_t color, key;                  ///< split
  uint64_t ticket;                     ///< of memory it has made for others
};

/// One rank's view of the page. The page starts as zeroes.
class Control {
 public:
  Control(std::byte* page, int rank, int size, Membership& membership);
  static int64_t bytes(int size);

  /// This rank's note for the collective under way, cleared, with its signature. Two notes are used in turn: the others
  /// may still be reading the last one.
  Note& write(const Collective& collective);
  const Note& note(int rank) const { return slots_[rank].notes[turn_]; }
  Note& mine() { return slots_[rank_].notes[turn_]; }

  /// Returns when every rank has entered; their writes are visible then.
  /// Errors: Error::comm that names the missing ranks, after the timeout.
  void barrier();
  /// A barrier, then in checked mode a comparison of all signatures. Errors: also Error::comm that names both sides.
  void meet();

 private:
  struct alignas(64) Slot {
    std::atomic<uint64_t> arrivals;   // barriers this rank has entered, on a cache line that only it writes
    alignas(64) Note notes[2];
  };

  std::string missing(uint64_t arrivals) const;

  Slot* slots_;
  int rank_, size_;
  Membership& membership_;
  uint64_t arrivals_ = 0;
  int turn_ = 0;
};

}  // namespace echelon
