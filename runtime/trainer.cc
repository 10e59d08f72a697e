#include "runtime/trainer.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "comm/agree.h"
#include "runtime/build.h"
#include "runtime/memory.h"
#include "runtime/not_finite.h"

namespace echelon {

std::string not_finite(const Report& report) {
  std::vector<std::string> found;
  auto look_at = [&](const char* name, double value) {
    // Which sign a NaN has depends on the order of sums.
    if (!std::isfinite(value)) found.push_back(fmt::format("{} {}", name, std::isnan(value) ? NAN : value));
  };
  look_at("loss", report.loss);
  look_at("gradient norm", report.gradient_norm);
  if (found.empty()) return "";
  return fmt::format("{} {} not finite", fmt::join(found, " and "), found.size() == 1 ? "is" : "are");
}

Diverged::Diverged(int64_t step, const std::string& reason, const std::string& where)
    : Error(Kind::numerics, fmt::format("step {}", step), fmt::format("{} ({})", reason, where)), reason(reason) {
  remedy("lower the learning rate, clip the gradient, or resume from an earlier checkpoint; no weight was updated");
}

Trainer::Trainer(const Recipe& recipe, const Mesh& mesh) : recipe_(recipe), mesh_(mesh), seed_(recipe.seed()) {
  register_builtin_methods(registry_);
  build_data();
  build_model();
  build_optimizer();
}

void Trainer::build_data() {
  // The objective needs the data's vocabulary, and a source needs to know how far the objective looks ahead.
  std::unique_ptr<Objective> probe = registry_.make<Objective>(recipe_.objective(), {any_vocabulary()});
  Source::Context context{probe->lookahead()};
  auto train = registry_.make<Source>(recipe_.data().train(), context);
  tokenizer_folder_ = train->tokenizer_folder();
  objective_ = registry_.make<Objective>(recipe_.objective(), {train->vocabulary()});
  source_ = model_source(recipe_, train->vocabulary());
  check_model(source_.architecture, *objective_, *train);
  Data::Options options{.shuffle = recipe_.data().shuffle(),
                        .global_batch = recipe_.batch().global(),
                        .micro_batch = recipe_.batch().micro(),
                        .vocabulary = source_.architecture.vocabulary};
  train_ = std::make_unique<Data>(std::move(train), *objective_, seed_, options);
  if (!recipe_.data().has_validation()) return;
  validation_ =
      std::make_unique<Data>(registry_.make<Source>(recipe_.data().validation(), context), *objective_, seed_, options);
}

void Trainer::build_model() {
  check_tensor_parallel(source_.architecture, mesh_.tp().size());
  zero_ = std::make_unique<Zero>(mesh_, zero_options(recipe_));
  zero_->exchange = exchange_of(recipe_, registry_);
  model_ = std::make_unique<Model>(source_.architecture, *zero_, model_options(recipe_));
  adapters_ = adapter_set(recipe_, source_, registry_);
  adapters_->attach(*model_);
  check_length(*model_, train_->source());
  model_->allocate();
  load_weights(*model_, source_, seed_);
  adapters_->load(*model_);
}

void Trainer::build_optimizer() {
  optimizer_ = registry_.make<Optimizer>(recipe_.optimizer(), {});
  schedule_ = registry_.make<Schedule>(recipe_.schedule(), {recipe_.steps()});
  ParameterGroups groups(recipe_);
  for (FlatShard* shard : model_->weights().trained()) {
    std::vector<GroupRule> rules;
    for (const Segment& segment : shard->segments()) rules.push_back(groups.rule_of(segment.parameter->name()));
    owned_.push_back(own(*shard, *optimizer_, rules));
  }
  guard_ = std::make_unique<MemoryGuard>(owned_, recipe_.numerics().guard_share(), mesh_.world().rank());
}

namespace {

/// Tells what this rank is at: to whoever watches it, and to a profile.
class PhaseOfStep {
 public:
  PhaseOfStep(RankProgress& progress, int64_t step) : progress_(progress), step_(step) {}
  void enter(Phase phase) {
    span_.reset();
    progress_.enter(phase, step_);
    span_.emplace(at::RecordScope::USER_SCOPE);
    if (span_->isActive()) span_->before(fmt::format("phase: {}", name_of(phase)));
  }

 private:
  RankProgress& progress_;
  int64_t step_;
  std::optional<at::RecordFunction> span_;
};

bool all_are_finite(const std::map<std::string, double>& losses) {
  return std::all_of(losses.begin(), losses.end(), [](const auto& loss) { return std::isfinite(loss.second); });
}

}  // namespace

Report Trainer::step(int64_t step) {
  const Group& world = mesh_.world();
  Report report{.step = step, .learning_rate = optimizer_->learning_rate() * schedule_->factor(step)};
  BytesSent before = bytes_so_far();
  Stopwatch watch(world.seconds());
  double communication_before = world.seconds();

  PhaseOfStep phase(*progress_, step);
  phase.enter(Phase::input);
  std::vector<Batch> batches = train_->step(step, mesh_.dp().rank(), mesh_.dp().size());
  report.targets = count_targets(batches, mesh_.dp());
  report.tokens = recipe_.batch().global() * train_->source().length();
  report.seconds.data = watch.lap(world.seconds());

  phase.enter(Phase::compute);
  zero_->exchange->start(step);
  int64_t targets = zero_->exchange->synchronous() ? report.targets : count_targets(batches, mesh_.dp_in_replica());
  forward_and_backward(batches, targets, seed_.with("step").with(step), report);
  for (FlatShard* shard : model_->weights().trained()) shard->sum_partial_gradients();
  report.seconds.compute = watch.lap(world.seconds());

  phase.enter(Phase::update);
  bool loss_is_finite = all_are_finite(report.losses);
  double gradient_norm = reduce_losses_and_norm(report);
  if (!not_finite(report).empty()) report.not_finite_where = find_not_finite(model_->weights(), mesh_, loss_is_finite);
  if (before_update_) report.seconds.checkpoint = watch.leave_out(before_update_);
  check_memory();
  skipped_in_a_row_ = skips(report) ? skipped_in_a_row_ + 1 : 0;
  report.skipped = skipped_in_a_row_;
  // A step that is left out changes no master and no moment. Step numbers go on, and with them data, schedule and
  // Adam's bias correction, which then takes the moments for one step older than they are. Replicas that train apart
  // meet when they would have.
  if (report.skipped == 0) update(report, gradient_norm);
  zero_->exchange->updated(model_->weights());
  model_->weights().publish();
  guard_->keep(step);
  report.seconds.optimizer = watch.lap(world.seconds());

  report.seconds.communication = world.seconds() - communication_before;
  report.seconds.total = watch.total();
  gather_measurements(report, before);
  return report;
}

int64_t Trainer::count_targets(const std::vector<Batch>& batches, const Group& ranks) const {
  int64_t mine = 0;
  for (const Batch& batch : batches) mine += batch.targets;
  return agree_sum(ranks, mine, "targets");
}

void Trainer::forward_and_backward(const std::vector<Batch>& batches, int64_t targets, const Seed& seed,
                                   Report& report) {
  for (FlatShard* shard : model_->weights().trained()) shard->forget_gradients();
  for (size_t micro = 0; micro < batches.size(); ++micro) {
    progress_->beat();
    zero_->first_micro_step = micro == 0;
    zero_->last_micro_step = micro + 1 == batches.size();
    Batch batch = batches[micro].on(mesh_.world().device());
    at::Tensor loss = forward(batch, seed, report);
    RECORD_USER_SCOPE("phase: backward");
    // Divide by the global count, not ours: ranks hold different numbers of targets, and a mean of means weighs them
    // wrongly.
    loss.backward(at::full({}, 1.0 / static_cast<double>(std::max<int64_t>(1, targets)), loss.options()));
  }
}

at::Tensor Trainer::forward(const Batch& batch, const Seed& seed, Report& report) {
  RECORD_USER_SCOPE("phase: forward");
  Terms terms = objective_->loss(*model_, batch, model_->pass(batch, seed, /*training=*/true));
  at::Tensor loss;
  for (const auto& [name, term] : terms.terms) {
    report.losses[name] += term.sum.item<double>();
    loss = loss.defined() ? loss + term.sum : term.sum;
  }
  return loss;
}

double Trainer::reduce_losses_and_norm(Report& report) const {
  RECORD_USER_SCOPE("phase: norm");
  // One collective for all: the losses (equal on the tensor parallel ranks, so one of them counts) and the square norm.
  double square_norm = square_norm_of(owned_, mesh_);
  std::vector<double> sums{square_norm};
  bool counts = mesh_.tp().rank() == 0;
  for (const auto& [name, sum] : report.losses) sums.push_back(counts ? sum : 0);
  at::Tensor all = at::tensor(sums, at::kDouble).to(mesh_.world().device());
  mesh_.world().all_reduce(all, {.name = "losses and norm"}).wait();
  all = all.cpu();
  report.gradient_norm = std::sqrt(all[0].item<double>() / mesh_.replicas());
  int64_t i = 1;
  for (auto& [name, value] : report.losses) {
    value = all[i++].item<double>() / static_cast<double>(std::max<int64_t>(1, report.targets));
    report.loss += value;
  }
  if (zero_->exchange->synchronous()) return report.gradient_norm;
  double of_tp_rank = agree_sum(mesh_.dp_in_replica(), square_norm, "norm of the replica");
  return std::sqrt(agree_sum(mesh_.tp(), of_tp_rank, "norm of the replica"));
}

bool Trainer::skips(const Report& report) const {
  // Reduced numbers: every rank sees the same and decides the same.
  std::string what = not_finite(report);
  if (what.empty()) return false;
  int64_t most = recipe_.numerics().skip();
  bool forgets = zero_->exchange->forgets_gradients();
  if (forgets && skipped_in_a_row_ < most) return true;
  if (most > 0) {
    what += forgets ? fmt::format(", after {} steps in a row that were left out for that", most)
                    : "; the step cannot be left out, as the exchange keeps a part of every gradient for later steps";
  }
  throw Diverged(report.step, what, report.not_finite_where);
}

void Trainer::update(const Report& report, double gradient_norm) {
  RECORD_USER_SCOPE("phase: optimizer");
  double clip = recipe_.clip_norm();
  Update update{.step = report.step, .learning_rate = report.learning_rate};
  if (clip > 0) update.gradient_scale = std::min(1.0, clip / (gradient_norm + 1e-6));
  for (Owned& owned : owned_) optimizer_->step(owned, update);
}

BytesSent Trainer::bytes_so_far() const {
  BytesSent bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = mesh_.world().bytes_sent(static_cast<Purpose>(i));
  return bytes;
}

void Trainer::gather_measurements(Report& report, const BytesSent& before) {
  BytesSent now = bytes_so_far();
  std::vector<int64_t> mine;
  for (size_t i = 0; i < now.size(); ++i) mine.push_back(now[i] - before[i]);
  at::Tensor sums = at::tensor(mine, at::kLong).to(mesh_.world().device());
  mesh_.world().all_reduce(sums, {.name = "bytes sent"}).wait();
  sums = sums.cpu();
  for (size_t i = 0; i < now.size(); ++i) report.bytes_sent[i] = sums[i].item<int64_t>();
  report.memory_peak_bytes = agree_max(mesh_.world(), peak_memory_bytes(mesh_.world().device()), "memory");
}

Evaluation Trainer::evaluate(int64_t batches) {
  at::NoGradGuard no_gradients;
  Stopwatch watch(mesh_.world().seconds());
  int64_t count = validation_->batches_in_pass();
  if (batches > 0) count = std::min(count, batches);
  double sum = 0;
  int64_t targets = 0;
  for (int64_t index = 0; index < count; ++index) {
    progress_->beat();
    for (const Batch& here : validation_->pass(index, mesh_.dp().rank(), mesh_.dp().size())) {
      Batch batch = here.on(mesh_.world().device());
      Terms terms = objective_->loss(*model_, batch, model_->pass(batch, seed_, /*training=*/false));
      for (const auto& [name, term] : terms.terms) sum += term.sum.item<double>();
      targets += batch.targets;
    }
  }
  sum = agree_sum(mesh_.dp(), sum, "validation loss");
  targets = agree_sum(mesh_.dp(), targets, "validation targets");
  return {sum / static_cast<double>(std::max<int64_t>(1, targets)), targets, watch.total()};
}

}  // namespace echelon
