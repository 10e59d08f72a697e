#include "runtime/metrics/recorder.h"

#include <cmath>
#include <utility>

#include <fmt/format.h>

#include "cluster/base/files.h"
#include "cluster/base/text.h"
#include "comm/purpose.h"
#include "runtime/store/report.h"

namespace echelon {

namespace {

Json line_of(const Report& report, double checkpoint_seconds) {
  Json losses = Json::object(), bytes = Json::object();
  for (const auto& [name, loss] : report.losses) losses[name] = loss;
  for (Purpose purpose : kPurposes) bytes[name_of(purpose)] = report.bytes_sent[static_cast<size_t>(purpose)];
  const StepSeconds& seconds = report.seconds;
  Json line{{"step", report.step},
            {"loss", report.loss},
            {"losses", losses},
            {"learning_rate", report.learning_rate},
            {"grad_norm", report.gradient_norm},
            {"targets", report.targets},
            {"tokens", report.tokens},
            {"step_seconds", seconds.total},
            {"seconds",
             {{"compute", seconds.compute},
              {"communication", seconds.communication},
              {"optimizer", seconds.optimizer},
              {"data", seconds.data},
              {"other", seconds.other()}}},
            {"checkpoint_seconds", checkpoint_seconds},
            {"tokens_per_second", static_cast<double>(report.tokens) / seconds.total},
            {"bytes_sent", bytes},
            {"memory_peak_bytes", report.memory_peak_bytes}};
  if (report.skipped > 0) line["skipped"] = true;
  return line;
}

std::vector<std::pair<std::string, std::string>> facts_of(const Trainer& trainer) {
  const Recipe& recipe = trainer.recipe();
  const Mesh& mesh = trainer.mesh();
  return {{"parameters", human_count(static_cast<double>(const_cast<Trainer&>(trainer).model().weights().elements()))},
          {"ranks", fmt::format("{} (dp {}, tp {})", mesh.world().size(), mesh.dp().size(), mesh.tp().size())},
          {"sharding", fmt::format("ZeRO-{}", recipe.sharding().zero())},
          {"precision", Precision_Name(recipe.precision())},
          {"global batch",
           fmt::format("{} sequences of {} tokens", recipe.batch().global(), trainer.train_data().source().length())}};
}

}  // namespace

Recorder::Files::Files(const std::string& folder, int64_t last_step, int64_t steps, ProgressOptions options)
    : metrics(MetricsFile::open(join_path(folder, "metrics.jsonl"), last_step)),
      events(join_path(folder, "tensorboard"), last_step + 1),
      progress(steps, options) {
  for (const TakenStep& step : taken_steps(join_path(folder, "metrics.jsonl")))
    watch.add(step.step, step.loss, step.gradient_norm);
}

Recorder::Recorder(const std::string& folder, int64_t last_step, const Trainer& trainer, bool live)
    : folder_(folder),
      facts_(facts_of(trainer)),
      evaluate_every_(trainer.recipe().evaluate().every()),
      checkpoint_every_(trainer.recipe().checkpoint().every()),
      most_skipped_(trainer.recipe().numerics().skip()),
      rolls_back_(trainer.recipe().numerics().roll_back() > 0),
      roll_backs_(trainer.train_data().roll_backs()) {
  const Group& world = trainer.mesh().world();
  if (world.rank() != 0) return;
  ProgressOptions options{.terminal = live, .ranks = world.size()};
  files_ = std::make_unique<Files>(folder, last_step, trainer.recipe().steps(), options);
}

void Recorder::step(const Report& report) {
  waited(report.seconds.checkpoint);
  double checkpoint_seconds = std::exchange(waited_since_step_, 0);
  if (!files_) return;
  Json line = line_of(report, checkpoint_seconds);
  if (const RollBack* roll_back = roll_backs_.before(report.step)) line["rolled_back"] = roll_back->from_step;
  files_->metrics.append(line);
  double tokens_per_second = static_cast<double>(report.tokens) / report.seconds.total;
  TensorBoardWriter& events = files_->events;
  events.scalar("train/loss", report.loss, report.step);
  events.scalar("train/grad_norm", report.gradient_norm, report.step);
  events.scalar("train/lr", report.learning_rate, report.step);
  events.scalar("perf/tokens_per_s", tokens_per_second, report.step);
  events.scalar("perf/step_time_s", report.seconds.total, report.step);
  events.scalar("perf/data_wait_s", report.seconds.data, report.step);
  events.scalar("mem/peak_gib", static_cast<double>(report.memory_peak_bytes) / (1 << 30), report.step);
  files_->progress.step({.step = report.step,
                         .loss = report.loss,
                         .learning_rate = report.learning_rate,
                         .grad_norm = report.gradient_norm,
                         .tokens_per_second = tokens_per_second,
                         .step_seconds = report.seconds.total,
                         .data_seconds = report.seconds.data,
                         .memory_peak_bytes = report.memory_peak_bytes});
  warn(report);
}

void Recorder::warn(const Report& report) {
  loss_spike_.reset();
  if (report.skipped > 0) {
    say(fmt::format("warning: step {}: {} ({}); it is left out, {} in a row of at most {}", report.step,
                    not_finite(report), report.not_finite_where, report.skipped, most_skipped_));
    return;
  }
  SpikeWatch::OfStep spikes = files_->watch.add(report.step, report.loss, report.gradient_norm);
  if (rolls_back_) loss_spike_ = std::exchange(spikes.loss, {});
  for (const std::optional<SpikeWatch::Found>& spike : {spikes.loss, spikes.gradient_norm}) {
    if (spike) say(fmt::format("warning: step {}: {}; it goes on", report.step, spike->what));
  }
}

void Recorder::evaluation(int64_t step, const Evaluation& evaluation) {
  if (!files_) return;
  double perplexity = std::exp(evaluation.loss);
  files_->metrics.append({{"step", step},
                          {"eval", {{"loss", evaluation.loss}, {"perplexity", perplexity}}},
                          {"seconds", evaluation.seconds}});
  files_->events.scalar("eval/validation/loss", evaluation.loss, step);
  files_->events.scalar("eval/validation/perplexity", perplexity, step);
  files_->progress.pause("evaluation", evaluation.seconds, evaluate_every_);
  say(fmt::format("step {}: validation loss {:.4f}, perplexity {:.2f}", step, evaluation.loss, perplexity));
}

void Recorder::waited(double seconds) {
  waited_since_step_ += seconds;
  waited_since_save_ += seconds;
}

void Recorder::saved(int64_t step) {
  double seconds = std::exchange(waited_since_save_, 0);
  if (!files_) return;
  files_->progress.pause("checkpoint", seconds, checkpoint_every_);
  say(fmt::format("step {}: checkpoint saved, training waited {}", step, human_seconds(seconds)));
}

void Recorder::say(const std::string& line) {
  if (files_) files_->progress.say(line);
}

void Recorder::sync() {
  if (!files_) return;
  files_->metrics.sync();
  files_->events.flush();
}

void Recorder::write_report(const std::string& recipe_text) {
  if (!files_) return;
  echelon::write_report(join_path(folder_, "metrics.jsonl"), join_path(folder_, "report.html"),
                        {.title = folder_, .facts = facts_, .recipe = recipe_text});
}

}  // namespace echelon
