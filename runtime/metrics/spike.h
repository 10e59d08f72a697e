// Tells when a number of a run lies far above what it usually is.
#pragma once

#include <deque>
#include <optional>

namespace echelon {

/// Two steps in a row, each more than six robust standard deviations above the median of the last 100, are a spike; a
/// single outlier is not. It is told once and is over when a value is less than three above. Robust: median and median
/// absolute deviation, which a spike hardly moves. Nothing is told before 20 values; what is not finite is left out.
class Spike {
 public:
  /// The usual value, in the step that makes a spike of it.
  std::optional<double> add(double value);

 private:
  /// Standard deviations above `usual`, the median of the values so far.
  double height(double value, double usual) const;

  std::deque<double> values_;
  int high_in_a_row_ = 0;
  bool told_ = false;
};

}  // namespace echelon
