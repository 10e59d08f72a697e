#include "runtime/run.h"

#include <functional>
#include <optional>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "cluster/base/log.h"
#include "comm/agree.h"
#include "comm/together.h"
#include "models/kernels/isa.h"
#include "models/layers/product_table.h"
#include "runtime/checkpoint/load.h"
#include "runtime/checkpoint/recover.h"
#include "runtime/checkpoint/save.h"
#include "runtime/metrics/recorder.h"
#include "runtime/profile.h"
#include "runtime/recipe/changes.h"
#include "runtime/recipe/text.h"
#include "runtime/replica_check.h"
#include "runtime/store/roll_backs.h"
#include "runtime/store/run_folder.h"
#include "runtime/store/scrub.h"
#include "runtime/trainer.h"

namespace echelon {

namespace {

constexpr int64_t kRecipeLimit = 4 << 20;

/// One run in its folder. Rank 0 holds the folder; decisions about it are made there and told to all.
class RunInFolder {
 public:
  RunInFolder(const Recipe& recipe, const Mesh& mesh, const RunOptions& options)
      : recipe_(recipe),
        mesh_(mesh),
        options_(options),
        store_(options.folder),
        own_(options.resume_from.empty()),
        before_step_(options.before_step) {}

  int run();

 private:
  void hold_folder();
  void check_recipe_of_folder() const;
  std::string start_of_other_run() const;
  std::string find_start();
  int64_t skipped_before() const;
  RollBacks roll_backs_before() const;
  /// From the checkpoint to start from until the run ends, stops or rolls back.
  void go_on();
  bool is_finished() const { return last_step_ >= recipe_.steps() && exists(path(result())); }
  void train(Trainer& trainer, Recorder& recorder);
  void take_steps(Trainer& trainer, Recorder& recorder, CheckpointSaver& saver);
  /// False: its numbers are not finite, and the run rolls back.
  bool take_step(int64_t step, Trainer& trainer, Recorder& recorder, CheckpointSaver& saver);
  Report profiled_step(Trainer& trainer, Recorder& recorder) const;
  /// Whether the run goes back to before `fault`, the first step that lies too high or was left out; what it goes on
  /// from is then decided and durable. Collective. Errors: Error::numerics when it has done so too often.
  bool roll_back(int64_t step, int64_t fault, const std::string& reason, Recorder& recorder, CheckpointSaver& saver);
  bool compare_now(int64_t step, bool saves) const;
  bool evaluate_now(int64_t step) const;
  void evaluate(Trainer& trainer, Recorder& recorder, int64_t step) const;
  struct Ending {
    bool stop, spike;  ///< any rank was asked to; the loss spikes, and the run may roll back
  };
  /// What all ranks know of it; takes an undecided save further when no rank is busy with it.
  Ending end_of_step(Recorder& recorder, CheckpointSaver& saver);
  /// Says what is wrong with old checkpoints, and sets them aside. No save is being decided.
  void settle_scrub(Recorder& recorder);
  void save(Recorder& recorder, CheckpointSaver& saver, int64_t step) const;
  void wait_for(Recorder& recorder, const std::function<std::optional<int64_t>()>& save) const;
  void wait_or_warn(Recorder& recorder, const std::function<std::optional<int64_t>()>& save) const;
  void finish(Trainer& trainer, Recorder& recorder) const;
  /// The folder of the result: a model, or an adapter.
  std::string result() const {
    return recipe_.adapter_size() + recipe_.model().adapter_size() > 0 ? "adapter" : "export";
  }
  std::string path(const std::string& name) const { return join_path(options_.folder, name); }
  bool first() const { return mesh_.world().rank() == 0; }

  const Recipe& recipe_;
  const Mesh& mesh_;
  const RunOptions& options_;
  CheckpointStore store_;
  std::optional<RunFolder> held_;
  bool own_;  // the checkpoint to start from is one of this run
  int64_t before_step_;
  RollBacks roll_backs_;
  int64_t last_step_ = 0;
  bool stopped_ = false, rolled_back_ = false;
  std::optional<BackgroundScrub> scrub_;
};

int RunInFolder::run() {
  on_first_rank(mesh_.world(), "run folder", [&] {
    hold_folder();
    return std::string();
  });
  on_every_rank(mesh_.world(), "log",
                [&] { log_to_file(path(fmt::format("log/rank-{:05}.log", mesh_.world().rank()))); });
  EC_LOG(info, "{}, process {}", mesh_.place(), getpid());
  EC_LOG(info, "kernels for {}; products by {}", name_of(isa()), products_in_words());
  do go_on();
  while (rolled_back_);
  return stopped_ ? static_cast<int>(Error::Kind::stopped) : 0;
}

void RunInFolder::go_on() {
  std::string start = find_start();
  std::optional<CheckpointReader> reader;
  on_every_rank(mesh_.world(), "open checkpoint", [&] {
    if (!start.empty()) reader.emplace(open_checkpoint(start));
  });
  bool own = reader && own_;
  last_step_ = own ? reader->step() : 0;
  rolled_back_ = false;

  roll_backs_ = roll_backs_before();
  Trainer trainer(recipe_, mesh_);
  trainer.report_to(options_.progress);
  trainer.leave_out(roll_backs_);
  if (reader) load_state(trainer, *reader);
  reader.reset();  // the files need not stay mapped
  on_first_rank(mesh_.world(), "recipe", [&] {
    write_file_atomically(path("recipe.textproto"), recipe_text(recipe_));
    return std::string();
  });
  Recorder recorder(options_.folder, last_step_, trainer, options_.live_progress);
  trainer.go_on_after_skipped(skipped_before());
  if (own) recorder.say(fmt::format("going on from {}", start));
  if (options_.profile_step > 0 && options_.profile_step <= last_step_)
    recorder.say(fmt::format("no profile of step {}: it is done already", options_.profile_step));
  if (own && is_finished()) {
    return recorder.say(fmt::format("{} is finished: all {} steps are done", options_.folder, recipe_.steps()));
  }
  train(trainer, recorder);
  if (!stopped_ && !rolled_back_) finish(trainer, recorder);
}

void RunInFolder::hold_folder() {
  held_.emplace(RunFolder::hold(options_.folder,
                                {.trusted = options_.trust_folder, .self = RunOwner::this_process(options_.job)}));
  store_.act_under(held_->epoch());
  if (!held_->taken_over_from().empty()) {
    EC_LOG(info, "{} was held by {}, which is gone: taken over", options_.folder, held_->taken_over_from());
  }
  bool used = exists(path("recipe.textproto"));
  if (used && options_.resume == Resume::never) {
    throw Error::recipe(options_.folder, "holds a run already")
        .remedy("choose another --out, or leave out --resume=never");
  }
  if (used) check_recipe_of_folder();
  store_.clean();
  make_folders(path("log"));
}

void RunInFolder::check_recipe_of_folder() const {
  std::string file = path("recipe.textproto");
  check_change(file, parse_recipe(read_file(file, Error::Kind::recipe, kRecipeLimit), file), recipe_);
}

std::string RunInFolder::start_of_other_run() const {
  if (is_checkpoint(options_.resume_from)) return options_.resume_from;
  auto other = CheckpointStore(options_.resume_from).recover();
  if (!other) throw Error::storage(options_.resume_from, "is no checkpoint and holds none");
  return other->folder;
}

std::string RunInFolder::find_start() {
  if (own_) return newest_whole_step(store_, mesh_.world(), std::exchange(before_step_, 0));
  return on_first_rank(mesh_.world(), "checkpoint to start from", [&] { return start_of_other_run(); });
}

RollBacks RunInFolder::roll_backs_before() const {
  std::string text =
      on_first_rank(mesh_.world(), "roll-backs", [&] { return RollBacks::read(options_.folder).text(); });
  return RollBacks::parse(text, path(kRollBacksFile));
}

int64_t RunInFolder::skipped_before() const {
  // Metrics are durable before the checkpoint of their step, and end with it: no checkpoint needs to hold the number.
  return std::stoll(on_first_rank(mesh_.world(), "steps that were left out",
                                  [&] { return std::to_string(skipped_at_end(path("metrics.jsonl"))); }));
}

void RunInFolder::train(Trainer& trainer, Recorder& recorder) {
  CheckpointSaver saver(trainer, store_, recipe_.checkpoint().keep());
  // A run whose only save is the last one needs no copy.
  if (recipe_.checkpoint().background() && last_step_ + recipe_.checkpoint().every() < recipe_.steps()) saver.prepare();
  double minutes = recipe_.checkpoint().scrub_minutes();
  if (first() && minutes > 0) scrub_.emplace(store_, minutes);
  try {
    take_steps(trainer, recorder, saver);
  } catch (const Error& error) {
    // Diverged, on every rank alike: what was being saved is from before.
    if (error.kind() == Error::Kind::numerics) wait_or_warn(recorder, [&] { return saver.finish(); });
    throw;
  }
  // Not while a roll-back decides about the same steps: what it goes back to is verified whole.
  if (!rolled_back_) settle_scrub(recorder);
  scrub_.reset();
}

void RunInFolder::take_steps(Trainer& trainer, Recorder& recorder, CheckpointSaver& saver) {
  for (int64_t step = last_step_ + 1; step <= recipe_.steps() && !stopped_; ++step) {
    if (!take_step(step, trainer, recorder, saver)) return;
    if (evaluate_now(step)) evaluate(trainer, recorder, step);
    Ending ending = end_of_step(recorder, saver);
    if (ending.spike) {
      SpikeWatch::Found spike = recorder.loss_spike().value_or(SpikeWatch::Found{});  // rank 0 knows it
      if (roll_back(step, spike.first_step, spike.what, recorder, saver)) return;
      recorder.say(
          fmt::format("warning: step {}: {}; no checkpoint is from before it, so it goes on", step, spike.what));
    }
    stopped_ = ending.stop && step < recipe_.steps();
    bool saves = stopped_ || step == recipe_.steps() || step % recipe_.checkpoint().every() == 0;
    if (compare_now(step, saves)) compare_replicas(trainer);
    if (saves) trainer.check_memory();
    if (saves) save(recorder, saver, step);
    last_step_ = step;
  }
}

bool RunInFolder::take_step(int64_t step, Trainer& trainer, Recorder& recorder, CheckpointSaver& saver) {
  try {
    Report report = step == options_.profile_step ? profiled_step(trainer, recorder) : trainer.step(step);
    if (held_) held_->check_held();  // frozen for long, we may have been given up: then what we write is another's
    recorder.step(report);
    return true;
  } catch (const Diverged& diverged) {
    int64_t fault = step - trainer.skipped_in_a_row();
    bool may = recipe_.numerics().roll_back() > 0;
    if (!may || !roll_back(step, fault, diverged.reason, recorder, saver)) throw;
    return false;
  }
}

bool RunInFolder::roll_back(int64_t step, int64_t fault, const std::string& reason, Recorder& recorder,
                            CheckpointSaver& saver) {
  int64_t done = std::ssize(roll_backs_.all()), most = recipe_.numerics().roll_back();
  wait_or_warn(recorder, [&] { return saver.finish(); });
  std::string said = on_first_rank(mesh_.world(), "roll-back", [&]() -> std::string {
    if (done >= most) {
      std::string what = fmt::format("{}, after {} roll-back{}", reason, done, done == 1 ? "" : "s");
      throw Error::numerics(fmt::format("step {}", step), what)
          .remedy("lower the learning rate, clip the gradient, or look at the data there");
    }
    std::vector<int64_t> committed = store_.steps();
    std::optional<int64_t> to = roll_backs_.step_to_go_back_to(committed, fault);
    if (!to) return "";
    // Killed before the last line, the run comes here again: what is left leads to the same decision.
    for (; committed.back() > *to; committed.pop_back()) store_.set_aside(committed.back());
    roll_backs_.add(step, *to, reason, recipe_.batch().global());
    write_file_atomically(path(kRollBacksFile), roll_backs_.text());
    return fmt::format("step {}: {}; the run goes back to step {} and leaves out {} samples, {} of at most {} times",
                       step, reason, *to, roll_backs_.all().back().samples, done + 1, most);
  });
  if (said.empty()) return false;
  recorder.say("warning: " + said);
  options_.progress->enter(Phase::start, step);
  own_ = rolled_back_ = true;
  return true;
}

Report RunInFolder::profiled_step(Trainer& trainer, Recorder& recorder) const {
  on_first_rank(mesh_.world(), "profile", [&] {
    make_folders(path("profile"));
    return std::string();
  });
  Report report;
  std::string file = path(fmt::format("profile/rank-{:05}.json", mesh_.world().rank()));
  record_profile(mesh_.world(), file, [&] { report = trainer.step(options_.profile_step); });
  recorder.say(fmt::format("step {} is recorded in {}", report.step, path("profile")));
  return report;
}

/// What is saved has been compared: a job that goes on from it does not go on from a fault.
bool RunInFolder::compare_now(int64_t step, bool saves) const {
  int64_t every = recipe_.numerics().compare_every();
  return every > 0 && (saves || step % every == 0);
}

bool RunInFolder::evaluate_now(int64_t step) const {
  if (!recipe_.data().has_validation()) return false;
  int64_t every = recipe_.evaluate().every();
  return step == recipe_.steps() || (every > 0 && step % every == 0);
}

void RunInFolder::evaluate(Trainer& trainer, Recorder& recorder, int64_t step) const {
  // The last evaluation looks at everything.
  options_.progress->enter(Phase::evaluate, step);
  recorder.evaluation(step, trainer.evaluate(step == recipe_.steps() ? 0 : recipe_.evaluate().batches()));
}

RunInFolder::Ending RunInFolder::end_of_step(Recorder& recorder, CheckpointSaver& saver) {
  bool stop = options_.stop_requested && options_.stop_requested();
  std::vector<bool> any = agree_any(mesh_.world(), {stop, saver.busy(), recorder.loss_spike().has_value()},
                                    "stop, a checkpoint is being written, or the loss spikes");
  if (!any[1]) {
    settle_scrub(recorder);
    wait_or_warn(recorder, [&] { return saver.advance(); });
  }
  return {.stop = any[0], .spike = any[2]};
}

void RunInFolder::settle_scrub(Recorder& recorder) {
  if (!scrub_) return;
  for (const DamagedStep& found : scrub_->take()) {
    for (const std::string& line : settle(store_, found)) {
      EC_LOG(warning, "{}", line);
      recorder.say("warning: " + line);
    }
  }
}

void RunInFolder::save(Recorder& recorder, CheckpointSaver& saver, int64_t step) const {
  auto save_at_once = [&] {
    recorder.sync();
    saver.save(step);
    return step;
  };
  auto start = [&] {
    recorder.sync();
    saver.start(step);
    return std::nullopt;
  };
  options_.progress->enter(Phase::save, step);
  wait_or_warn(recorder, [&] { return saver.finish(); });
  if (stopped_ || step == recipe_.steps()) {
    wait_for(recorder, save_at_once);
  } else if (recipe_.checkpoint().background()) {
    wait_or_warn(recorder, start);
  } else {
    wait_or_warn(recorder, save_at_once);
  }
}

void RunInFolder::wait_for(Recorder& recorder, const std::function<std::optional<int64_t>()>& save) const {
  Stopwatch watch(mesh_.world().seconds());
  std::optional<int64_t> durable = save();
  recorder.waited(watch.total());
  if (durable) recorder.saved(*durable);
}

void RunInFolder::wait_or_warn(Recorder& recorder, const std::function<std::optional<int64_t>()>& save) const {
  try {
    wait_for(recorder, save);
  } catch (const Error& error) {
    if (error.kind() != Error::Kind::storage) throw;
    recorder.say(fmt::format("warning: no checkpoint, training goes on: {}", error.message()));
  }
}

void RunInFolder::finish(Trainer& trainer, Recorder& recorder) const {
  std::string folder = path(result());
  options_.progress->enter(Phase::finish, last_step_);
  if (trainer.adapters().empty()) {
    write_model_folder(folder, trainer.model(), trainer.source().config,
                       {.frozen_from = trainer.source().reader.get(), .tokenizer_from = trainer.tokenizer_folder()});
  } else {
    trainer.adapters().write(folder, trainer.model(), recipe_.model().load());
  }
  if (first()) recorder.write_report(recipe_text(recipe_));
  recorder.say("exported to " + folder);
}

}  // namespace

int run_training(const Recipe& recipe, const Mesh& mesh, const RunOptions& options) {
  return RunInFolder(recipe, mesh, options).run();
}

}  // namespace echelon
