// train, batches and eval: the commands around a recipe.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/files.h"
#include "cluster/base/json.h"
#include "cluster/base/safetensors.h"
#include "comm/agree.h"
#include "comm/together.h"
#include "launch/options/installation.h"
#include "launch/options/rank_status.h"
#include "launch/rank/commands.h"
#include "launch/rank/loaded_model.h"
#include "runtime/plan.h"
#include "runtime/recipe/check.h"
#include "runtime/run.h"
#include "runtime/trainer.h"

namespace echelon {

namespace {

std::atomic<bool> stop_requested = false;

void request_stop(int) { stop_requested = true; }

bool is_stop_requested() { return stop_requested; }

Recipe checked_recipe(const std::string& name, const std::vector<std::string>& overrides, int ranks,
                      const std::string& adapter = "") {
  LoadedRecipe loaded = read_recipe(name, overrides, find_installation().recipes);
  if (!adapter.empty()) {
    loaded.recipe.clear_adapter();  // the folder says what it is
    loaded.recipe.mutable_model()->add_adapter(adapter);
  }
  check_recipe(loaded.recipe, ranks, loaded.places);
  return loaded.recipe;
}

/// Where the launcher looks.
std::shared_ptr<RankProgress> progress_of(int rank) {
  std::string folder = rank_arguments().status_folder;
  return std::make_shared<RankProgress>(folder.empty() ? "" : join_path(folder, rank_file_stem(rank) + ".progress"));
}

std::string slurm_job() {
  const char* job = std::getenv("SLURM_JOB_ID");
  return job ? fmt::format("Slurm {}", job) : "";
}

/// Machines of the job; 0 where they hold unequal numbers of ranks, or ranks that are no neighbours. Collective.
int nodes_of(const Session& session) {
  const Group& world = session.world();
  int local = session.local_size();
  bool neighbours = world.size() % local == 0 && world.rank() % local == session.local_rank();
  int64_t largest = agree_max(world, int64_t{local}, "ranks of a node");
  return agree_all(world, neighbours && local == largest, "nodes") ? world.size() / local : 0;
}

MeshShape mesh_of(const Recipe& recipe, const Session& session) {
  return {.dp = recipe.mesh().dp(),
          .tp = recipe.mesh().tp(),
          .replicas = recipe.mesh().replicas(),
          .nodes = nodes_of(session)};
}

/// The launcher has printed the recipe; what follows needs the model's tensors declared, though none is allocated.
int dry_run(const TrainArguments& arguments) {
  int ranks = std::max(1, arguments.ranks);
  std::fputs(
      describe(plan_of(checked_recipe(arguments.recipe, arguments.overrides, ranks, arguments.adapter), ranks)).c_str(),
      stdout);
  return 0;
}

void append(std::vector<TensorEntry>& entries, std::vector<at::Tensor>& values, const std::string& name,
            const at::Tensor& tensor) {
  entries.push_back({name, DType::I64, tensor.sizes().vec(), 0, 0});
  values.push_back(tensor.contiguous());
}

}  // namespace

void stop_on_signals() {
  struct sigaction action {};
  action.sa_handler = request_stop;
  action.sa_flags = SA_RESTART;
  sigset_t stops;
  sigemptyset(&stops);
  for (int signal : {SIGUSR1, SIGTERM, SIGINT}) {
    sigaction(signal, &action, nullptr);
    sigaddset(&stops, signal);
  }
  // A thread of their own takes them: a handler that runs within a product by oneDNN (of PyTorch 2.11) was seen to
  // leave a destroyed heap behind. Threads that start later inherit the mask.
  pthread_sigmask(SIG_BLOCK, &stops, nullptr);
  std::thread([stops] {
    for (int signal = 0; sigwait(&stops, &signal) == 0;) stop_requested = true;
  }).detach();
}

int run_train(const CommandLine& line, Session& session) {
  TrainArguments arguments = train_arguments(line);
  if (arguments.dry_run) return dry_run(arguments);
  Recipe recipe = checked_recipe(arguments.recipe, arguments.overrides, session.world().size(), arguments.adapter);
  check_profile(arguments, recipe);
  Mesh mesh(session.world(), mesh_of(recipe, session));
  RunOptions options{.folder = arguments.out,
                     .live_progress = rank_arguments().live_progress,
                     .trust_folder = arguments.trust_folder,
                     .job = slurm_job(),
                     .progress = progress_of(session.world().rank()),
                     .profile_step = arguments.profile_step,
                     .before_step = rank_arguments().before_step,
                     .stop_requested = is_stop_requested};
  if (options.folder.empty()) {
    options.folder = on_first_rank(session.world(), "run folder", [&] { return default_run_folder(recipe.name()); });
  }
  if (arguments.resume == "never")
    options.resume = Resume::never;
  else if (arguments.resume != "auto")
    options.resume_from = arguments.resume;
  return run_training(recipe, mesh, options);
}

int run_batches(const CommandLine& line, Session& session) {
  BatchesArguments arguments = batches_arguments(line);
  Recipe recipe = checked_recipe(arguments.recipe, arguments.overrides, 1);
  Session alone = Session::alone();
  Mesh mesh(alone.world(), {.dp = 1, .tp = 1});
  Trainer trainer(recipe, mesh);
  std::vector<TensorEntry> entries;
  std::vector<at::Tensor> values;
  for (int64_t step = 1; step <= arguments.steps; ++step) {
    std::vector<Batch> batches = trainer.batches(step);
    for (size_t micro = 0; micro < batches.size(); ++micro) {
      for (const auto& [name, tensor] : batches[micro].tensors)
        append(entries, values, fmt::format("{}.{}.{}", step, micro, name), tensor);
    }
  }
  SafetensorsWriter writer(arguments.output, entries, {{"format", "pt"}}, Error::Kind::storage);
  for (size_t i = 0; i < entries.size(); ++i)
    writer.write(entries[i].name, values[i].const_data_ptr(), values[i].nbytes());
  writer.finish();
  return 0;
}

int run_eval(const CommandLine& line, Session& session) {
  EvalArguments arguments = eval_arguments(line);
  std::vector<std::string> overrides = arguments.overrides;
  overrides.push_back("model.load=" + arguments.model);
  Recipe recipe = checked_recipe(arguments.recipe, overrides, session.world().size(), arguments.adapter);
  if (!recipe.data().has_validation())
    throw Error::recipe("data.validation", "is not given, so there is nothing to evaluate on");
  Mesh mesh(session.world(), mesh_of(recipe, session));
  Trainer trainer(recipe, mesh);
  if (arguments.merge_adapters) merge_adapters(trainer.model(), trainer.adapters(), arguments.model, arguments.adapter);
  Evaluation evaluation = trainer.evaluate(recipe.evaluate().batches());
  if (session.world().rank() == 0) {
    Json result{{"loss", evaluation.loss},
                {"perplexity", std::exp(evaluation.loss)},
                {"targets", evaluation.targets},
                {"seconds", evaluation.seconds}};
    std::printf("%s\n", dump_json(result).c_str());
  }
  return 0;
}

}  // namespace echelon
