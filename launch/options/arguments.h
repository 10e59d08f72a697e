// What each rank command was asked to do. Both programs read their arguments through these.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launch/options/commands.h"
#include "runtime/recipe/recipe_file.h"

namespace echelon {

/// What the launcher tells its ranks beside the command's own arguments.
struct RankArguments {
  std::string status_folder;   ///< where each rank reports its end (rank_status.h); empty: started by hand
  bool live_progress = false;  ///< a terminal is at the other end
  int64_t before_step = 0;     ///< train: go on from a checkpoint before this one; 0: from the newest
};
RankArguments rank_arguments();

struct TrainArguments {
  std::string recipe;  ///< name or file
  std::vector<std::string> overrides;
  std::string adapter;          ///< PEFT folder that training goes on with; empty: none
  std::string out;              ///< run folder; empty: runs/NAME-<time>
  std::string resume = "auto";  ///< auto | never | PATH of a checkpoint or run folder
  bool dry_run = false;
  int64_t profile_step = 0;   ///< 0: none
  int ranks = 0;              ///< ranks that a dry run plans for; 0: one
  bool trust_folder = false;  ///< accept a run folder that others own or may write to
};
TrainArguments train_arguments(const CommandLine& line);
/// Errors: Error::usage when the step to be profiled lies beyond the recipe's last.
void check_profile(const TrainArguments& arguments, const Recipe& recipe);

struct BatchesArguments {
  std::string recipe;
  std::vector<std::string> overrides;
  int64_t steps = 0;
  std::string output;
};
BatchesArguments batches_arguments(const CommandLine& line);

struct EvalArguments {
  std::string recipe;
  std::vector<std::string> overrides;
  std::string model;  ///< Hugging Face folder or checkpoint
  std::string adapter;  ///< PEFT folder laid over it; empty: none
  bool merge_adapters = false;  ///< folded into the weights before the first batch
};
EvalArguments eval_arguments(const CommandLine& line);

struct ForwardArguments {
  std::string model, adapter, input, output;
  bool merge_adapters = false;
  Precision precision = FP32;
  bool gradients = false;
  Recipe layout;  ///< resolved; only mesh and sharding mean something
};
ForwardArguments forward_arguments(const CommandLine& line);

struct GenerateArguments {
  std::string model, adapter;
  bool merge_adapters = false;
  std::string prompt;   ///< text, unless there are prompt_ids or
  std::string prompts;  ///< a file of them
  std::optional<std::vector<int64_t>> prompt_ids;
  int64_t max_new_tokens = 0;
  double temperature = 0;  ///< 0: greedy
  double top_p = 1;
  int64_t seed = 0;
  Precision precision = FP32;
};
GenerateArguments generate_arguments(const CommandLine& line);

struct ExportArguments {
  std::string checkpoint, out;
  std::string dtype;  ///< float32 | bfloat16 | float16
  int64_t max_shard_bytes = 0;
};
ExportArguments export_arguments(const CommandLine& line);

struct MergeArguments {
  std::string model, adapter, out;
};
MergeArguments merge_arguments(const CommandLine& line);
MergeArguments unmerge_arguments(const CommandLine& line);

/// A batch job of Slurm.
struct SubmitArguments {
  bool submit = false;
  int nodes = 0;                ///< 0: as Slurm sees fit
  std::string time, partition;  ///< in Slurm's words; empty: Slurm's defaults
  int seconds_to_save = 0;      ///< before the time limit, when the run is asked to stop
};
SubmitArguments submit_arguments();

struct DrillArguments {
  bool list = false;  ///< only says which faults there are
  std::string fault, recipe;
  std::vector<std::string> overrides;
  std::string out;  ///< folder of both runs
  int ranks = 0;    ///< 0: as `train` chooses
  int64_t seed = 0;
};
DrillArguments drill_arguments(const CommandLine& line);

/// How ranks are started.
struct StartArguments {
  int ranks = 0;  ///< 0: as many as GPUs are visible, else 1
  std::string hosts, hostfile;
  std::string launcher = "auto";  ///< auto | mpirun | srun
  int max_restarts = 3;
};
StartArguments start_arguments();

/// Checks the arguments of a rank command without keeping them. Errors: Error::usage.
void check_arguments(const CommandLine& line);

/// "5GB" (10^9), "200MB", "1GiB" (2^30), "1000": bytes. Errors: Error::usage naming `flag`.
int64_t parse_bytes(const std::string& text, const std::string& flag);

/// `runs/NAME-20260131-174502`: where a run goes that was given no folder.
std::string default_run_folder(const std::string& recipe_name);

/// What `inspect`, `recipes` and `doctor` were asked for.
bool wants_json();
bool wants_verify();

}  // namespace echelon
