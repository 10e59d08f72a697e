// What ranks and their starter write to stderr: ours passes, the starter's noise is kept aside and read.
#pragma once

#include <cstdio>
#include <optional>
#include <string>

#include "launch/command/job.h"

namespace echelon {

/// How mpirun or srun says that a rank ended.
struct StarterVerdict {
  int rank = -1;
  std::string host;
  int signal = 0;
  int exit_code = 0;
};

/// Feeds on pieces of a stream, writes whole lines and, when the stream rests, the line that is being drawn.
class RankOutput {
 public:
  explicit RankOutput(Starter starter, std::FILE* out = stderr) : starter_(starter), out_(out) {}

  void take(const std::string& piece);
  /// Writes what waits for its end of line: a progress line that is redrawn in place.
  void rest();
  /// The stream has ended.
  void finish();
  /// Writes a line of the launcher's own, below a line that is being drawn.
  void say(const std::string& line);

  const std::optional<StarterVerdict>& verdict() const { return verdict_; }
  /// The last line of the form `echelon: <kind>: …` that a rank wrote, without "echelon: ".
  const std::string& sentence() const { return sentence_; }
  /// All that was kept aside.
  const std::string& noise() const { return noise_; }

 private:
  void line(const std::string& text, const std::string& end);
  bool is_noise(const std::string& text);
  void read_noise(const std::string& text);
  void release_block();
  void write(const std::string& text);

  Starter starter_;
  std::FILE* out_;
  std::string pending_, sentence_, noise_, block_text_;
  std::optional<StarterVerdict> verdict_;
  StarterVerdict block_;  // what the present block of the starter's text has told so far
  bool inside_block_ = false;
  bool mid_line_ = false;  // the cursor stands behind a line that is being drawn
};

}  // namespace echelon
