// Tells when a number of a run lies far above what it usually is.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

namespace echelon {

/// Two steps in a row, each more than six robust standard deviations above the median of the last 100, are a spike; a
/// single outlier is not. It is told once and is over when a value is less than three above. Robust: median and median
/// absolute deviation, which a spike hardly moves. Nothing is told before 20 values; what is not finite is left out.
class Spike {
 public:
  /// The usual value, in the step that makes a spike of it.
  std::optional<double> add(double value);
  /// Values up to the last one that lie so high, without a lower one between.
  int in_a_row() const { return high_in_a_row_; }

 private:
  /// Standard deviations above `usual`, the median of the values so far.
  double height(double value, double usual) const;

  std::deque<double> values_;
  int high_in_a_row_ = 0;
  bool told_ = false;
};

/// Loss and gradient norm of the steps that were taken. The same steps, read again from metrics.jsonl, make the same
/// spikes.
class SpikeWatch {
 public:
  struct Found {
    int64_t first_step;  ///< that lay so high
    std::string what;    ///< "the loss spikes: 9.1 where 4.6 is usual"
  };
  /// What a step makes a spike of.
  struct OfStep {
    std::optional<Found> loss, gradient_norm;
  };
  OfStep add(int64_t step, double loss, double gradient_norm);

 private:
  Spike loss_, log_norm_;
  int64_t loss_high_since_ = 0, norm_high_since_ = 0;
};

}  // namespace echelon
