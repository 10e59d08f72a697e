// Writing a model folder from all ranks.
#include <map>
#include <optional>

#include <ATen/ATen.h>

#include "cluster/base/files.h"
#include "cluster/base/safetensors.h"
#include "comm/together.h"
#include "models/interchange/config_writer.h"
#include "models/interchange/staged_folder.h"
#include "models/interchange/stored_form.h"
#include "models/interchange/tensor_list.h"
#include "models/interchange/tokenizer_files.h"

namespace echelon {

namespace {

DType dtype_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return DType::F32;
    case at::kDouble:
      return DType::F64;
    case at::kHalf:
      return DType::F16;
    case at::kBFloat16:
      return DType::BF16;
    default:
      throw Error::internal("export", "no dtype for weights").got(c10::toString(dtype));
  }
}

/// The files of a folder: which stored tensor stands in which, the same on every rank.
struct Plan {
  std::vector<std::vector<TensorEntry>> shards;
  std::map<std::string, size_t> shard_of;  ///< by stored name
  SafetensorsIndex index;
};

Plan make_plan(const Architecture& architecture, const StoredForm& form, const FolderOptions& options) {
  std::vector<TensorEntry> entries;
  std::vector<int64_t> bytes;
  for (const NamedShape& tensor : tensors_of(architecture)) {
    for (const TensorPlace& place : form.places(tensor.name)) {
      if (place.part > 0) continue;
      TensorEntry entry{
          .name = place.name, .dtype = dtype_of(options.dtype), .shape = place.stored_sizes(tensor.sizes)};
      bytes.push_back(static_cast<int64_t>(tensor_bytes(entry.dtype, entry.shape)));
      entries.push_back(std::move(entry));
    }
  }
  Plan plan;
  std::vector<std::vector<size_t>> shards = plan_shards(bytes, options.max_shard_bytes);
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    plan.shards.emplace_back();
    for (size_t index : shards[shard]) {
      plan.shard_of[entries[index].name] = shard;
      plan.index.weight_map[entries[index].name] = shard_name(shard, shards.size());
      plan.index.total_size += bytes[index];
      plan.index.total_parameters += bytes[index] / (dtype_bits(entries[index].dtype) / 8);
      plan.shards.back().push_back(std::move(entries[index]));
    }
  }
  return plan;
}

class FolderWriter {
 public:
  FolderWriter(std::string folder, Model& model, const Json& config, const FolderOptions& options)
      : folder_(folder),
        model_(model),
        config_(config),
        options_(options),
        family_(find_family(config.at("model_type"), "config", Error::Kind::internal)),
        form_(family_, model.architecture()),
        world_(model.weights().units.front()->zero().mesh.world()),
        staged_(folder, world_) {}

  void run() {
    plan_ = make_plan(model_.architecture(), form_, options_);
    on_every_rank(world_, folder_, [this] { open_files(); });
    model_.weights().visit_whole(
        [](FlatShard& shard) { return shard.master(); },
        [this](const Parameter& parameter, const at::Tensor& whole) { visit(parameter, whole); });
    on_every_rank(world_, folder_, [this] { finish_files(); });
    on_every_rank(world_, folder_, [this] { commit(); });
  }

 private:
  bool is_mine(size_t shard) const { return static_cast<int>(shard % world_.size()) == world_.rank(); }

  void open_files() {
    files_.resize(plan_.shards.size());
    for (size_t shard = 0; shard < plan_.shards.size(); ++shard) {
      if (!is_mine(shard)) continue;
      files_[shard] =
          std::make_unique<SafetensorsWriter>(staged_.path(shard_name(shard, plan_.shards.size())), plan_.shards[shard],
                                              std::map<std::string, std::string>{{"format", "pt"}});
    }
  }

  // Nothing may throw here: the other ranks are in the next tensor's collective.
  void visit(const Parameter& parameter, const at::Tensor& whole) {
    // What an adapter adds has been folded in, or has a folder of its own.
    if (failure_ || parameter.name().starts_with("adapters.")) return;
    try {
      for (const TensorPlace& place : form_.places(parameter.name())) {
        size_t shard = plan_.shard_of.at(place.name);
        if (is_mine(shard)) write(*files_[shard], place, exact(parameter, whole));
      }
    } catch (const Error& error) {
      failure_ = error;
    }
  }

  at::Tensor exact(const Parameter& parameter, const at::Tensor& whole) const {
    bool rounded = options_.frozen_from && !parameter.trained() && options_.frozen_from->has(parameter.name());
    return rounded ? options_.frozen_from->read(parameter.name(), Slice::whole(parameter.layout().sizes)) : whole;
  }

  void write(SafetensorsWriter& file, const TensorPlace& place, const at::Tensor& whole) {
    at::Tensor values = whole.to(at::kCPU, options_.dtype);
    if (options_.dtype == at::kHalf && !at::isfinite(values).all().item<bool>() &&
        at::isfinite(whole).all().item<bool>()) {
      throw Error::numerics(place.name, "has values beyond float16").remedy("export as bfloat16 or float32");
    }
    values = form_.put(place, values);
    if (!values.defined()) return;
    file.write(place.name, values.const_data_ptr(), values.nbytes());
  }

  void finish_files() {
    if (failure_) throw *failure_;
    for (auto& file : files_) {
      if (file) file->finish();
    }
  }

  void commit() {
    if (world_.rank() != 0) return;
    write_small_files();
    if (plan_.shards.size() > 1) plan_.index.write(staged_.path("model.safetensors.index.json"));
    staged_.commit();
  }

  void write_small_files() const {
    Json config = completed_config(config_, model_.architecture());
    write_file_atomically(staged_.path("config.json"), config_text(config, options_.dtype));
    if (!options_.tokenizer_from.empty()) copy_tokenizer(options_.tokenizer_from, staged_.path());
    if (!family_.is_generative() || !model_.architecture().head) return;
    std::string theirs = join_path(options_.tokenizer_from, "generation_config.json");
    bool has_theirs = !options_.tokenizer_from.empty() && exists(theirs);
    write_file_atomically(staged_.path("generation_config.json"),
                          has_theirs ? read_file(theirs, Error::Kind::input, 1 << 20) : generation_config_text(config));
  }

  std::string folder_;
  Model& model_;
  const Json& config_;
  const FolderOptions& options_;
  const Family& family_;
  StoredForm form_;
  const Group& world_;
  StagedFolder staged_;
  Plan plan_;
  std::vector<std::unique_ptr<SafetensorsWriter>> files_;  // null: another rank's
  std::optional<Error> failure_;
};

}  // namespace

void write_model_folder(const std::string& folder, Model& model, const Json& config, const FolderOptions& options) {
  FolderWriter(folder, model, config, options).run();
}

}  // namespace echelon
