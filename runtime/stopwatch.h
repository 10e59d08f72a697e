// Where the seconds of a step go.
#pragma once

#include <chrono>
#include <functional>

namespace echelon {

/// Seconds of one step; the parts add up to `total`.
struct StepSeconds {
  double total = 0;
  double compute = 0;         ///< forward and backward, without collectives
  double communication = 0;   ///< inside collectives: what compute did not hide
  double optimizer = 0;
  double data = 0;

  double checkpoint = 0;      ///< waited for a save; not in `total`

  double other() const { return total - compute - communication - optimizer - data; }
};

/// Splits time into laps; time spent in collectives is subtracted from the lap it fell into.
class Stopwatch {
 public:
  explicit Stopwatch(double communication_so_far) : communication_(communication_so_far) {}

  /// Seconds since the last lap (or the start), without the collectives in between.
  double lap(double communication_so_far) {
    double elapsed = since(last_) - (communication_so_far - communication_);
    last_ = Clock::now();
    communication_ = communication_so_far;
    return elapsed;
  }
  double total() const { return since(start_); }
  /// Runs `action`, whose seconds belong to no lap and not to the total. Returns them.
  double leave_out(const std::function<void()>& action) {
    Clock::time_point began = Clock::now();
    action();
    Clock::duration took = Clock::now() - began;
    start_ += took;
    last_ += took;
    return std::chrono::duration<double>(took).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  static double since(Clock::time_point point) { return std::chrono::duration<double>(Clock::now() - point).count(); }

  Clock::time_point start_ = Clock::now(), last_ = start_;
  double communication_;
};

}  // namespace echelon
