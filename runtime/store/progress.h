// What a person sees while a run goes on: one live line on a terminal, plain lines elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <optional>
#include <string>
#include <vector>

namespace echelon {

/// One step's numbers. Absent ones are not shown.
struct StepNumbers {
  int64_t step = 0;
  double loss = 0;
  double learning_rate = 0;
  std::optional<double> grad_norm;  ///< before clipping
  double tokens_per_second = 0;     ///< all ranks
  double step_seconds = 0;
  double data_seconds = 0;                    ///< of step_seconds, spent waiting for input
  std::optional<double> mfu;                  ///< 0 to 1
  std::optional<int64_t> memory_peak_bytes;   ///< largest rank
  std::optional<int64_t> memory_total_bytes;  ///< of its device
};

struct ProgressOptions {
  bool terminal = false;  ///< one live line, redrawn at most 10 times a second
  int64_t every = 10;     ///< steps between plain lines
  int64_t ranks = 1;
  std::string rank_word = "rank";  ///< "rank" or "gpu", for tokens per second of one
  std::FILE* out = stderr;
  int columns = 0;  ///< of the terminal; 0: ask it
};

/// The last 50 values of a number, and how far the newest lies from the others.
class RecentValues {
 public:
  void add(double value);
  size_t size() const { return values_.size(); }
  double median() const;
  /// Robust z-score of the newest among those before it; 0 until there are ten.
  double z_score() const;

 private:
  std::deque<double> values_;
};

class Progress {
 public:
  Progress(int64_t last_step, ProgressOptions options);
  /// Ends the live line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const StepNumbers& numbers);
  /// A line that stays (an evaluation, a save, a warning), above the live one.
  void say(const std::string& line);
  /// What a save or an evaluation took, and the steps between two of them: counted in the time left.
  void pause(const std::string& what, double seconds, int64_t interval);
  /// Seconds until the end: steps left times the median of the last 50 step times, plus the pauses to come. Nothing
  /// before five steps were measured.
  std::optional<double> seconds_left() const;

  /// The two spellings of the line. The live one leaves out its least important parts to fit into `columns`.
  std::string live_line(int columns) const;
  std::string plain_line() const;

 private:
  struct Pause {
    std::string what;
    double seconds;
    int64_t interval;
  };
  struct Part {
    std::string text;
    int rank;  ///< the highest is left out first
  };
  std::vector<Part> live_parts() const;
  void draw();
  void print(const std::string& text);
  double done() const;

  int64_t last_step_;
  ProgressOptions options_;
  StepNumbers numbers_;
  RecentValues step_seconds_, losses_, grad_norms_;
  std::vector<Pause> pauses_;
  double loss_ema_ = 0;
  bool line_is_up_ = false;
  std::chrono::steady_clock::time_point drawn_;
};

/// Whether `out` is a terminal that understands a live line (TERM is not "dumb").
bool is_live_terminal(std::FILE* out);

}  // namespace echelon
