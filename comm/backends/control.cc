#include "comm/backends/control.h"

#include <vector>

namespace echelon {

Control::Control(std::byte* page, int rank, int size, Membership& membership)
    : slots_(reinterpret_cast<Slot*>(page)), rank_(rank), size_(size), membership_(membership) {}

int64_t Control::bytes(int size) { return static_cast<int64_t>(sizeof(Slot)) * size; }

Note& Control::write(const Collective& collective) {
  turn_ ^= 1;
  Note& note = mine();
  note = {};
  note.signature = Signature::of(collective);
  return note;
}

void Control::barrier() {
  slots_[rank_].arrivals.store(++arrivals_, std::memory_order_release);
  int next = 0;   // all ranks before it have arrived
  auto all_here = [&] {
    while (next < size_ && slots_[next].arrivals.load(std::memory_order_acquire) >= arrivals_) ++next;
    return next == size_;
  };
  membership_.wait_until(all_here, [&] { return missing(arrivals_); });
}

std::string Control::missing(uint64_t arrivals) const {
  std::vector<std::string> missing;
  for (int rank = 0; rank < size_; ++rank) {
    const Slot& slot = slots_[rank];
    if (slot.arrivals.load(std::memory_order_acquire) >= arrivals) continue;
    const Signature& one = slot.notes[0].signature;
    const Signature& other = slot.notes[1].signature;
    const Signature& last = one.sequence > other.sequence ? one : other;
    missing.push_back(last.op == Op::none ? fmt::format("rank {} (in no collective so far)", rank)
                                          : fmt::format("rank {} (last in {})", rank, last.text()));
  }
  return fmt::format("{}", fmt::join(missing, ", "));
}

void Control::meet() {
  barrier();
  if (!membership_.checked) return;
  const Signature& ours = note(rank_).signature;
  for (int rank = 0; rank < size_; ++rank) {
    const Signature& theirs = note(rank).signature;
    if (!ours.agrees(theirs)) throw disagreement(rank_, ours, rank, theirs);
  }
}

}  // namespace echelon
