// Writes what a run reports: metrics.jsonl, TensorBoard, the progress line, report.html.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "runtime/metrics/spike.h"
#include "runtime/store/metrics_file.h"
#include "runtime/store/progress.h"
#include "runtime/store/tfevents.h"
#include "runtime/trainer.h"

namespace echelon {

/// Rank 0 has one; on other ranks it does nothing.
class Recorder {
 public:
  /// `last_step`: of the checkpoint that the run goes on from; later lines are dropped, those that stay say what is
  /// usual.
  Recorder(const std::string& folder, int64_t last_step, const Trainer& trainer, bool live);

  void step(const Report& report);
  /// Of the loss, where the last step made one, and the run may roll back: then nothing was said of it.
  const std::optional<SpikeWatch::Found>& loss_spike() const { return loss_spike_; }
  void evaluation(int64_t step, const Evaluation& evaluation);
  /// Training waited for a save: counted with the next step.
  void waited(double seconds);
  /// The checkpoint of `step` is durable; training has waited for it since the one before.
  void saved(int64_t step);
  void say(const std::string& line);
  /// Makes all lines durable; before the checkpoint of their step is committed.
  void sync();
  void write_report(const std::string& recipe_text);

 private:
  /// What a person should know of a step beyond its numbers.
  void warn(const Report& report);

  struct Files {
    Files(const std::string& folder, int64_t last_step, int64_t steps, ProgressOptions options);
    MetricsFile metrics;
    TensorBoardWriter events;
    Progress progress;
    SpikeWatch watch;
  };
  std::string folder_;
  std::vector<std::pair<std::string, std::string>> facts_;
  int64_t evaluate_every_, checkpoint_every_, most_skipped_;
  bool rolls_back_;
  RollBacks roll_backs_;
  std::optional<SpikeWatch::Found> loss_spike_;
  std::unique_ptr<Files> files_;
  double waited_since_step_ = 0, waited_since_save_ = 0;
};

}  // namespace echelon
