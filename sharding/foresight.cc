#include "sharding/foresight.h"

#include <utility>

#include "sharding/unit.h"

namespace echelon {

namespace {

/// Not at the start of another pass, nor where a Unit is needed a second time.
bool follows(const Unit& unit, const Unit& last, Direction direction) {
  return direction == Direction::forward ? unit.position() > last.position() : unit.position() < last.position();
}

}  // namespace

Unit* Foresight::after(Unit& unit, Direction direction) {
  auto& next = next_[static_cast<size_t>(direction)];
  Unit* last = std::exchange(last_, &unit);
  bool goes_on = std::exchange(last_direction_, direction) == direction && last;
  if (goes_on && !follows(unit, *last, direction)) return nullptr;
  if (goes_on) next[last] = &unit;
  auto found = next.find(&unit);
  return found == next.end() ? nullptr : found->second;
}

void Foresight::forget(const Unit& unit) {
  if (last_ == &unit) last_ = nullptr;
  for (auto& next : next_) {
    next.erase(&unit);
    std::erase_if(next, [&](const auto& step) { return step.second == &unit; });
  }
}

}  // namespace echelon
