// Which Unit's values are needed next.
#pragma once

#include <array>
#include <cstddef>
#include <map>

namespace echelon {

class Unit;

enum class Direction { forward, backward };

/// Foresees which Unit is gathered after another: the one that was the last time in the same kind of pass. All ranks
/// foresee the same.
class Foresight {
 public:
  /// `unit` is being gathered. Gives the one that is expected next, or null: at the end of a pass, and in the first.
  Unit* after(Unit& unit, Direction direction);
  void forget(const Unit& unit);

 private:
  std::array<std::map<const Unit*, Unit*>, 2> next_;  // by Direction
  Unit* last_ = nullptr;
  Direction last_direction_ = Direction::forward;
};

}  // namespace echelon
