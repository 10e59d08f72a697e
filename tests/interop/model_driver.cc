// Runs many small jobs of the rank program in one process, with ranks as threads: forwards, round trips, generations.
//
//     model_driver JOBS.json        [{"do": "forward", "model": DIR, "input": F, "output": F, "dp": 1, "tp": 2,
//     "gradients": true},
//                                    {"do": "copy", "model": DIR, "out": DIR, "dp": 2, "tp": 1, "max_shard_bytes":
//                                    4000},
//                                    {"do": "copy_adapter", "model": DIR, "adapter": DIR, "out": DIR},
//                                    {"do": "merge", "model": DIR, "adapter": DIR, "out": DIR, "back": DIR, "dp": 2},
//                                    {"do": "merge_shards", "model": DIR, "adapter": DIR, "out": DIR, "dp": 2, "tp":
//                                    2},
//                                    {"do": "reshard", "checkpoint": DIR, "out": DIR, "dp": 1, "tp": 2, "zero": 3},
//                                    {"do": "generate", "model": DIR, "prompts": [[1, 2]], "max_new_tokens": 9, "tp": 2},
//                                    …]
//
// Prints one line of JSON for each job: what it gave, or {"error": sentence}.
#include <cstdio>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "cluster/base/files.h"
#include "cluster/base/json.h"
#include "comm/session.h"
#include "launch/rank/export.h"
#include "launch/rank/forward.h"
#include "launch/rank/generate.h"
#include "launch/rank/loaded_model.h"
#include "models/interchange/merge_folder.h"
#include "runtime/checkpoint/load.h"
#include "runtime/checkpoint/save.h"
#include "runtime/recipe/text.h"
#include "runtime/trainer.h"

namespace echelon {
namespace {

Recipe layout_of(const Json& job) {
  Recipe layout;
  layout.mutable_mesh()->set_dp(job.value("dp", 1));
  layout.mutable_mesh()->set_tp(job.value("tp", 1));
  layout.mutable_sharding()->set_zero(job.value("zero", 3));
  return layout;
}

void run_forward_job(const Json& job, const Group& world) {
  forward({.model = job.at("model"),
           .adapter = job.value("adapter", ""),
           .input = job.at("input"),
           .output = job.at("output"),
           .merge_adapters = job.value("merge_adapters", false),
           .precision = job.value("bf16", false) ? BF16 : FP32,
           .gradients = job.value("gradients", false),
           .layout = layout_of(job)},
          world);
}

void run_copy_job(const Json& job, const Group& world) {
  LoadedModel loaded(open_model(job.at("model")), world, layout_of(job));
  write_model_folder(job.at("out"), loaded.model, loaded.source.config,
                     {.max_shard_bytes = job.value("max_shard_bytes", int64_t{5'000'000'000}),
                      .tokenizer_from = loaded.source.tokenizer_folder});
}

void run_copy_adapter_job(const Json& job, const Group& world) {
  LoadedModel loaded(open_model(job.at("model")), world, layout_of(job), job.at("adapter"));
  loaded.adapters->write(job.at("out"), loaded.model, job.at("model"));
}

void run_merge_job(const Json& job, const Group& world) {
  Registry registry;
  register_builtin_methods(registry);
  merge_folder(job.at("model"), job.at("adapter"), job.at("out"), registry, world);
  unmerge_folder(job.at("out"), job.at("back"), registry, world);
}

void run_merge_shards_job(const Json& job, const Group& world) {
  LoadedModel loaded(open_model(job.at("model")), world, layout_of(job), job.at("adapter"));
  loaded.adapters->fold_into(loaded.model);
  write_model_folder(job.at("out"), loaded.model, loaded.source.config);
}

/// Loads a training state on another layout and saves it from there.
void run_reshard_job(const Json& job, const Group& world) {
  CheckpointReader reader(open_checkpoint(job.at("checkpoint")));
  Recipe recipe = parse_recipe(reader.recipe(), job.at("checkpoint"));
  Recipe layout = layout_of(job);
  *recipe.mutable_mesh() = layout.mesh();
  *recipe.mutable_sharding() = layout.sharding();
  Mesh mesh(world, {.tp = layout.mesh().tp()});
  Trainer trainer(recipe, mesh);
  load_state(trainer, reader);
  save_checkpoint(trainer, CheckpointStore(job.at("out")), reader.step(), /*keep=*/1);
}

std::vector<std::vector<int64_t>> run_generate_job(const Json& job, const Group& world) {
  LoadedModel loaded(open_model(job.at("model")), world, layout_of(job), job.value("adapter", ""));
  return generate(loaded.model, loaded.mesh, job.at("prompts"),
                  {.max_new_tokens = job.at("max_new_tokens"),
                   .temperature = job.value("temperature", 0.0),
                   .top_p = job.value("top_p", 1.0),
                   .seed = job.value("seed", int64_t{0})});
}

Json run(const Json& job) {
  Json result = Json::object();
  run_thread_ranks(job.value("dp", 1) * job.value("tp", 1), [&](const Group& world) {
    std::string what = job.at("do");
    if (what == "forward") run_forward_job(job, world);
    if (what == "copy") run_copy_job(job, world);
    if (what == "copy_adapter") run_copy_adapter_job(job, world);
    if (what == "merge") run_merge_job(job, world);
    if (what == "reshard") run_reshard_job(job, world);
    if (what == "merge_shards") run_merge_shards_job(job, world);
    if (what != "generate") return;
    auto ids = run_generate_job(job, world);
    if (world.rank() == 0) result["ids"] = ids;
  });
  return result;
}

int run_all(const std::string& path) {
  at::set_num_threads(1);
  for (const Json& job : parse_json(read_file(path, Error::Kind::input, 1 << 26), path)) {
    Json result;
    try {
      result = run(job);
    } catch (const std::exception& error) {
      result["error"] = error.what();
    }
    std::printf("%s\n", dump_json(result).c_str());
  }
  return 0;
}

}  // namespace
}  // namespace echelon

int main(int argc, char** argv) { return argc == 2 ? echelon::run_all(argv[1]) : 2; }
