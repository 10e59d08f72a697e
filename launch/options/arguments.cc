#include "launch/options/arguments.h"

#include <charconv>
#include <cmath>
#include <ctime>
#include <map>

#include <gflags/gflags.h>

#include "cluster/base/error.h"
#include "runtime/recipe/overrides.h"
#include "runtime/recipe/resolve.h"

DEFINE_string(out, "", "folder that is written; train: runs/NAME-<time> unless given");
DEFINE_string(resume, "auto",
              "auto: continue what the folder holds; never: refuse a folder that holds a run; or a path to start from");
DEFINE_int32(max_restarts, 3,
             "times that ranks are started again after one failed, from the last checkpoint; each new checkpoint "
             "begins the count anew (0 to 1000)");
DEFINE_string(adapter, "", "PEFT folder laid over the model");
DEFINE_bool(merge_adapters, false, "fold the adapters into the weights first: from then on they cost nothing");
DEFINE_bool(dry_run, false, "print the resolved recipe and what it needs; start nothing");
DEFINE_int64(profile, 0, "step that each rank records into OUT/profile, as Chrome traces (1 or more); 0: none");
DEFINE_bool(trust_dir, false, "accept a run folder that belongs to another user or that anyone may write to");
DEFINE_int32(ranks, 0, "processes in all (1 to 65536); 0: as many as GPUs are visible, else 1");
DEFINE_string(hosts, "", "machines and their ranks: a:2,b:2; empty: this one");
DEFINE_string(hostfile, "", "file with lines `HOST slots=N`");
DEFINE_string(launcher, "auto", "auto, mpirun or srun; auto takes srun inside a Slurm allocation");
DEFINE_bool(submit, false, "hand the run to Slurm as a batch job and return; it goes on by itself after a time limit");
DEFINE_int32(nodes, 0, "machines of a job that is submitted (0 to 65536); 0: as Slurm sees fit");
DEFINE_string(time, "", "time limit of a job that is submitted, in Slurm's words: 02:00:00");
DEFINE_string(partition, "", "Slurm partition of a job that is submitted");
DEFINE_int32(seconds_to_save, 120,
             "how long before its time limit a submitted job is asked to stop and save (1 to 65535)");
DEFINE_int64(steps, 0, "optimizer steps whose batches are written (1 or more)");
DEFINE_string(output, "", "safetensors file that is written");
DEFINE_string(input, "", "safetensors file with the input tensors");
DEFINE_string(model, "", "Hugging Face folder or checkpoint");
DEFINE_string(precision, "FP32", "FP32, BF16 or FP64");
DEFINE_bool(gradients, false, "also write grad.<parameter> of the mean cross-entropy of the input `labels`");
DEFINE_string(prompt, "", "text that is continued");
DEFINE_string(prompts, "",
              "file of texts that are continued together, {\"prompt\": …} in each line; so is what is printed");
DEFINE_string(prompt_ids, "", "token ids that are continued: 1,2,3");
DEFINE_int64(max_new_tokens, 64, "tokens to add at most (1 or more)");
DEFINE_double(temperature, 0, "0: the likeliest token; above 0: drawn, flatter as it grows");
DEFINE_double(top_p, 1, "draw from the likeliest tokens that hold this share of probability (0 to 1)");
DEFINE_int64(seed, 0, "of the draws");
DEFINE_string(dtype, "float32", "float32, bfloat16 or float16");
DEFINE_string(max_shard_size, "5GB", "largest file of the weights");
DEFINE_bool(verify, false, "read and hash every byte");
DEFINE_bool(list, false, "say which faults there are");
DEFINE_bool(json, false, "one JSON object on stdout");
DEFINE_string(status_folder, "", "where ranks report their end; set by the launcher");
DEFINE_int64(before_step, 0, "go on from a checkpoint before this one; set by the launcher");
DEFINE_string(progress, "auto", "auto, live or plain; set by the launcher");

namespace echelon {

namespace {

const std::string& required(const std::string& value, const char* flag) {
  if (value.empty()) throw Error::usage(flag, "must be given");
  return value;
}

template <class Number>
Number in_range(Number value, Number min, Number max, const char* flag) {
  if (!(value >= min && value <= max)) {  // also refuses NaN
    throw Error::usage(flag, "out of range").got(value).expected(fmt::format("{} to {}", min, max));
  }
  return value;
}

Precision precision() {
  static const std::map<std::string, Precision> known = {{"FP32", FP32}, {"BF16", BF16}, {"FP64", FP64}};
  auto found = known.find(FLAGS_precision);
  if (found == known.end())
    throw Error::usage("--precision", "unknown precision").got(FLAGS_precision).expected("FP32, BF16 or FP64");
  return found->second;
}

Recipe layout(const std::vector<std::string>& overrides) {
  Recipe recipe;
  Places places;
  for (const std::string& override : overrides) {
    if (!override.starts_with("mesh.") && !override.starts_with("sharding.")) {
      throw Error::usage(override, "only mesh and sharding can be set here");
    }
    apply_override(recipe, override, places);
  }
  resolve(recipe);
  return recipe;
}

std::optional<std::vector<int64_t>> parse_ids(const std::string& text) {
  if (text.empty()) return {};
  std::vector<int64_t> ids;
  const char* end = text.data() + text.size();
  for (const char* at = text.data();; ++at) {
    int64_t id = 0;
    auto [stop, failure] = std::from_chars(at, end, id);
    if (failure != std::errc() || id < 0 || (stop != end && *stop != ',')) {
      throw Error::usage("--prompt_ids", "no list of ids").got(printable(text)).expected("1,2,3");
    }
    ids.push_back(id);
    if ((at = stop) == end) return ids;
  }
}

}  // namespace

RankArguments rank_arguments() {
  if (FLAGS_progress != "auto" && FLAGS_progress != "live" && FLAGS_progress != "plain") {
    throw Error::usage("--progress", "unknown style").got(FLAGS_progress).expected("auto, live or plain");
  }
  return {FLAGS_status_folder, FLAGS_progress == "live", FLAGS_before_step};
}

TrainArguments train_arguments(const CommandLine& line) {
  required(FLAGS_resume, "--resume");
  return {.recipe = line.names.at(0),
          .overrides = line.overrides,
          .adapter = FLAGS_adapter,
          .out = FLAGS_out,
          .resume = FLAGS_resume,
          .dry_run = FLAGS_dry_run,
          .profile_step = in_range<int64_t>(FLAGS_profile, 0, 1'000'000'000, "--profile"),
          .ranks = start_arguments().ranks,
          .trust_folder = FLAGS_trust_dir};
}

void check_profile(const TrainArguments& arguments, const Recipe& recipe) {
  if (arguments.profile_step <= recipe.steps()) return;
  throw Error::usage("--profile", "this run has no such step")
      .got(arguments.profile_step)
      .expected(fmt::format("1 to {}", recipe.steps()));
}

BatchesArguments batches_arguments(const CommandLine& line) {
  return {.recipe = line.names.at(0),
          .overrides = line.overrides,
          .steps = in_range<int64_t>(FLAGS_steps, 1, 1'000'000'000, "--steps"),
          .output = required(FLAGS_output, "--output")};
}

EvalArguments eval_arguments(const CommandLine& line) {
  return {.recipe = line.names.at(0),
          .overrides = line.overrides,
          .model = required(FLAGS_model, "--model"),
          .adapter = FLAGS_adapter,
          .merge_adapters = FLAGS_merge_adapters};
}

ForwardArguments forward_arguments(const CommandLine& line) {
  if (FLAGS_merge_adapters && FLAGS_gradients)
    throw Error::usage("--merge_adapters", "leaves no gradients of the adapters").remedy("leave out --gradients");
  return {.model = required(FLAGS_model, "--model"),
          .adapter = FLAGS_adapter,
          .input = required(FLAGS_input, "--input"),
          .output = required(FLAGS_output, "--output"),
          .merge_adapters = FLAGS_merge_adapters,
          .precision = precision(),
          .gradients = FLAGS_gradients,
          .layout = layout(line.overrides)};
}

GenerateArguments generate_arguments(const CommandLine& line) {
  if (!FLAGS_prompt.empty() + !FLAGS_prompt_ids.empty() + !FLAGS_prompts.empty() != 1)
    throw Error::usage("generate", "give one of --prompt, --prompt_ids and --prompts");
  return {.model = required(FLAGS_model, "--model"),
          .adapter = FLAGS_adapter,
          .merge_adapters = FLAGS_merge_adapters,
          .prompt = FLAGS_prompt,
          .prompts = FLAGS_prompts,
          .prompt_ids = parse_ids(FLAGS_prompt_ids),
          .max_new_tokens = in_range<int64_t>(FLAGS_max_new_tokens, 1, 1 << 24, "--max_new_tokens"),
          .temperature = in_range(FLAGS_temperature, 0.0, 1e6, "--temperature"),
          .top_p = in_range(FLAGS_top_p, 0.0, 1.0, "--top_p"),
          .seed = FLAGS_seed,
          .precision = precision()};
}

ExportArguments export_arguments(const CommandLine& line) {
  if (FLAGS_dtype != "float32" && FLAGS_dtype != "bfloat16" && FLAGS_dtype != "float16") {
    throw Error::usage("--dtype", "unknown type").got(printable(FLAGS_dtype)).expected("float32, bfloat16 or float16");
  }
  return {.checkpoint = line.names.at(0),
          .out = required(FLAGS_out, "--out"),
          .dtype = FLAGS_dtype,
          .max_shard_bytes = parse_bytes(FLAGS_max_shard_size, "--max_shard_size")};
}

MergeArguments merge_arguments(const CommandLine& line) {
  layout(line.overrides);
  return {.model = required(FLAGS_model, "--model"),
          .adapter = required(FLAGS_adapter, "--adapter"),
          .out = required(FLAGS_out, "--out")};
}

MergeArguments unmerge_arguments(const CommandLine& line) {
  layout(line.overrides);
  return {.model = required(FLAGS_model, "--model"), .adapter = "", .out = required(FLAGS_out, "--out")};
}

SubmitArguments submit_arguments() {
  return {.submit = FLAGS_submit,
          .nodes = in_range(FLAGS_nodes, 0, 65536, "--nodes"),
          .time = FLAGS_time,
          .partition = FLAGS_partition,
          .seconds_to_save = in_range(FLAGS_seconds_to_save, 1, 65535, "--seconds_to_save")};
}

DrillArguments drill_arguments(const CommandLine& line) {
  if (FLAGS_list) return {.list = true};
  if (line.names.size() != 2)
    throw Error::usage("drill", "needs a fault and a recipe").remedy("`echelon drill --list` lists the faults");
  const std::string& fault = line.names[0];
  return {.fault = fault,
          .recipe = line.names[1],
          .overrides = line.overrides,
          .out = FLAGS_out.empty() ? default_run_folder("drill-" + fault) : FLAGS_out,
          .ranks = in_range(FLAGS_ranks, 0, 65536, "--ranks"),
          .seed = FLAGS_seed};
}

StartArguments start_arguments() {
  if (FLAGS_launcher != "auto" && FLAGS_launcher != "mpirun" && FLAGS_launcher != "srun") {
    throw Error::usage("--launcher", "unknown launcher")
        .got(printable(FLAGS_launcher))
        .expected("auto, mpirun or srun");
  }
  if (!FLAGS_hosts.empty() && !FLAGS_hostfile.empty())
    throw Error::usage("--hosts", "give either --hosts or --hostfile");
  return {.ranks = in_range(FLAGS_ranks, 0, 65536, "--ranks"),
          .hosts = FLAGS_hosts,
          .hostfile = FLAGS_hostfile,
          .launcher = FLAGS_launcher,
          .max_restarts = in_range(FLAGS_max_restarts, 0, 1000, "--max_restarts")};
}

void check_arguments(const CommandLine& line) {
  const std::string& name = line.command->name;
  if (name == "train") train_arguments(line);
  if (name == "batches") batches_arguments(line);
  if (name == "eval") eval_arguments(line);
  if (name == "forward") forward_arguments(line);
  if (name == "generate") generate_arguments(line);
  if (name == "export") export_arguments(line);
  if (name == "merge") merge_arguments(line);
  if (name == "unmerge") unmerge_arguments(line);
}

int64_t parse_bytes(const std::string& text, const std::string& flag) {
  static const std::map<std::string, double> units = {{"", 1},       {"B", 1},         {"KB", 1e3},
                                                      {"MB", 1e6},   {"GB", 1e9},      {"TB", 1e12},
                                                      {"KiB", 1024}, {"MiB", 1048576}, {"GiB", 1073741824}};
  double number = 0;
  auto [stop, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  auto unit = units.find(std::string(stop, text.data() + text.size()));
  double bytes = unit == units.end() ? -1 : number * unit->second;
  if (failure != std::errc() || !(bytes >= 1) || bytes > 1e15) {
    throw Error::usage(flag, "no size").got(printable(text)).expected("a number and B, KB, MB, GB, KiB, MiB or GiB");
  }
  return static_cast<int64_t>(bytes);
}

std::string default_run_folder(const std::string& recipe_name) {
  std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[32];
  std::strftime(text, sizeof text, "%Y%m%d-%H%M%S", &local);
  return fmt::format("runs/{}-{}", recipe_name, text);
}

bool wants_json() { return FLAGS_json; }
bool wants_verify() { return FLAGS_verify; }

}  // namespace echelon
