#include "runtime/checkpoint/load.h"

#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/files.h"
#include "cluster/base/json.h"
#include "runtime/build.h"
#include "runtime/checkpoint/exchange_state.h"
#include "runtime/checkpoint/names.h"
#include "runtime/recipe/text.h"

namespace echelon {

namespace {

constexpr int64_t kStateLimit = 64 << 20;
constexpr uint64_t kLargestOffset = uint64_t{1} << 60;

at::ScalarType scalar_type(DType dtype, const std::string& place) {
  if (dtype == DType::F32) return at::kFloat;
  if (dtype == DType::F64) return at::kDouble;
  throw Error::storage(place, fmt::format("holds {} tensors", dtype_name(dtype))).expected("F32 or F64");
}

/// offset[i] - base[i] .. + sizes[i] of `tensor`.
at::Tensor window(at::Tensor tensor, const Slice& part, const std::vector<int64_t>& base) {
  for (size_t dim = 0; dim < part.sizes.size(); ++dim) {
    tensor = tensor.narrow(static_cast<int64_t>(dim), part.offsets[dim] - base[dim], part.sizes[dim]);
  }
  return tensor;
}

const Json& child_of(const Json& object, const std::string& key, const std::string& place, const std::string& mistake) {
  if (!object.is_object() || !object.contains(key)) throw Error::storage(place, mistake);
  return object[key];
}

Slice slice_of(const TensorEntry& entry, const Json& sharding, const std::string& place) {
  Slice slice = Slice::whole(entry.shape);
  if (entry.shape.empty()) throw Error::storage(place, entry.name + " has no rows");
  std::string silent = "does not say where " + entry.name + " stands";
  const Json& offsets = child_of(child_of(sharding, entry.name, place, silent), "saved_offsets", place, silent);
  if (!offsets.is_array() || offsets.size() != entry.shape.size()) {
    throw Error::storage(place, "has offsets of another rank than the tensor for " + entry.name);
  }
  for (size_t dim = 0; dim < offsets.size(); ++dim) {
    if (!offsets[dim].is_number_unsigned() || offsets[dim].get<uint64_t>() > kLargestOffset)
      throw Error::storage(place, "has an offset that is no count for " + entry.name);
    slice.offsets[dim] = offsets[dim].get<int64_t>();
  }
  return slice;
}

/// Whether no element is in two of `slices`.
bool are_disjoint(std::vector<Slice> slices) {
  std::sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) { return a.offsets[0] < b.offsets[0]; });
  for (size_t i = 0; i < slices.size(); ++i) {
    int64_t end = slices[i].offsets[0] + slices[i].sizes[0];
    for (size_t next = i + 1; next < slices.size() && slices[next].offsets[0] < end; ++next) {
      if (intersect(slices[i], slices[next]).elements() > 0) return false;
    }
  }
  return true;
}

}  // namespace

CheckpointReader::CheckpointReader(const Checkpoint& checkpoint) : place_(checkpoint.folder) {
  read_state(checkpoint);
  for (const FileRecord& record : checkpoint.manifest.files) {
    if (record.name.ends_with(".safetensors")) files_.push_back(CheckpointFile::open(checkpoint, record.name));
  }
  for (const CheckpointFile& file : files_) index(file, place_);
}

void CheckpointReader::read_state(const Checkpoint& checkpoint) {
  std::string path = checkpoint.path(kStateFile);
  const FileRecord* record = checkpoint.manifest.find(kStateFile);
  if (!record) throw Error::storage(place_, "has no state.json");
  if (hash_file(path, record->writer) != *record)
    throw Error::storage(path, "is damaged: its hash is not the manifest's");
  Json state = parse_json(read_file(path, Error::Kind::storage, kStateLimit), path, Error::Kind::storage);
  step_ = json_integer(state, "step", path, 0, int64_t{1} << 60, Error::Kind::storage);
  recipe_ = json_string(state, "recipe", path, Error::Kind::storage);
  config_ = child_of(state, "config", path, "has no config of the model");
  if (!config_.is_object()) throw Error::storage(path, "config is no object");
  const Json& names = child_of(state, "optimizer_state", path, "does not name the optimizer's state");
  bool are_names = names.is_array() && std::all_of(names.begin(), names.end(), [](auto& n) { return n.is_string(); });
  if (!are_names) throw Error::storage(path, "optimizer_state is no list of names");
  optimizer_state_ = names.get<std::vector<std::string>>();
  if (state.contains("replicas")) {
    replicas_ = static_cast<int>(json_integer(state, "replicas", path, 1, 1 << 16, Error::Kind::storage));
  }
  if (!state.contains("exchange")) return;
  exchange_layout_.ranks =
      static_cast<int>(json_integer(state["exchange"], "ranks", path, 1, 1 << 24, Error::Kind::storage));
  exchange_layout_.tp =
      static_cast<int>(json_integer(state["exchange"], "tp", path, 1, exchange_layout_.ranks, Error::Kind::storage));
}

void CheckpointReader::index(const CheckpointFile& file, const std::string& place) {
  auto text = file.tensors().metadata().find("DCP_SHARDING_INFO");
  if (text == file.tensors().metadata().end())
    throw Error::storage(place, "a shard does not say where its tensors stand");
  Json sharding = parse_json(text->second, place, Error::Kind::storage);
  for (const TensorEntry& entry : file.tensors().entries()) {
    chunks_[entry.name].push_back({&file, &entry, slice_of(entry, sharding, place)});
  }
}

at::Tensor CheckpointReader::read(const std::string& name, const Slice& slice) {
  auto found = chunks_.find(name);
  if (found == chunks_.end()) throw Error::storage(place_, "holds no tensor " + name);
  at::ScalarType dtype = scalar_type(found->second.front().entry->dtype, place_);
  at::Tensor out = at::empty(slice.sizes, dtype);
  int64_t filled = 0;
  std::vector<Slice> found_slices;
  for (const Chunk& chunk : found->second) {
    if (chunk.slice.sizes.size() != slice.sizes.size())
      throw Error::storage(place_, name + " has another rank than the model's");
    Slice common = intersect(slice, chunk.slice);
    if (common.elements() == 0) continue;
    window(out, common, slice.offsets).copy_(part_of(chunk, common));
    filled += common.elements();
    found_slices.push_back(common);
  }
  // Rows that are there twice could make up for others that are not there.
  if (!are_disjoint(std::move(found_slices))) throw Error::storage(place_, "holds elements of " + name + " twice");
  if (filled != slice.elements())
    throw Error::storage(place_, fmt::format("holds {} of {} elements of {}", filled, slice.elements(), name));
  return out;
}

at::Tensor CheckpointReader::part_of(const Chunk& chunk, const Slice& common) const {
  // Whole rows of the chunk are one range of bytes; what is left out of a row is skipped when copying.
  int64_t row_bytes = static_cast<int64_t>(chunk.entry->end - chunk.entry->begin) / chunk.slice.sizes[0];
  int64_t first = common.offsets[0] - chunk.slice.offsets[0];
  const std::byte* bytes = chunk.file->slice(*chunk.entry, first * row_bytes, common.sizes[0] * row_bytes);
  Slice rows = chunk.slice;
  rows.offsets[0] = common.offsets[0];
  rows.sizes[0] = common.sizes[0];
  at::TensorOptions options = at::TensorOptions().dtype(scalar_type(chunk.entry->dtype, place_));
  return window(at::from_blob(const_cast<std::byte*>(bytes), rows.sizes, options), common, rows.offsets);
}

void CheckpointReader::add(const std::string& name, const Slice& slice, const at::Tensor& sum) {
  auto found = chunks_.find(name);
  if (found == chunks_.end()) return;
  for (const Chunk& chunk : found->second) {
    if (chunk.slice.sizes.size() != slice.sizes.size())
      throw Error::storage(place_, name + " has another rank than the model's");
    Slice common = intersect(slice, chunk.slice);
    if (common.elements() > 0) window(sum, common, slice.offsets).add_(part_of(chunk, common));
  }
}

bool CheckpointReader::holds(const std::string& name, const std::vector<int64_t>& sizes) const {
  auto found = chunks_.find(name);
  return found != chunks_.end() && found->second.size() == 1 && found->second.front().slice == Slice::whole(sizes);
}

namespace {

/// Fills an owned shard of `mesh` with what `prefix` names.
void read_of_replica(const FlatShard& shard, at::Tensor& owned, const Mesh& mesh, CheckpointReader& reader,
                     const std::string& prefix) {
  int copies = reader.replicas();
  if (copies == 1) return shard.read_owned(owned, reader, prefix);
  if (copies == mesh.replicas()) return shard.read_owned(owned, reader, replica_prefix(mesh.replica()) + prefix);
  at::Tensor copy = at::zeros_like(owned), sum = at::zeros_like(owned, owned.options().dtype(at::kDouble));
  for (int replica = 0; replica < copies; ++replica) {
    shard.read_owned(copy, reader, replica_prefix(replica) + prefix);
    sum.add_(copy);
  }
  owned.copy_(sum.div_(copies));
}

}  // namespace

void load_state(Trainer& trainer, CheckpointReader& reader) {
  std::vector<std::string> names = trainer.optimizer().state_names();
  if (names != reader.optimizer_state()) {
    throw Error::recipe("optimizer", "the checkpoint was written with another optimizer")
        .expected(fmt::format("{}", fmt::join(reader.optimizer_state(), ", ")));
  }
  for (Owned& owned : trainer.owned()) {
    for (const std::string& name : names)
      read_of_replica(*owned.shard, owned.state.at(name), trainer.mesh(), reader, state_prefix(name));
    read_of_replica(*owned.shard, owned.shard->master(), trainer.mesh(), reader, "");
  }
  load_exchange_state(trainer, reader);
  trainer.state_was_set();
  trainer.model().weights().publish();
}

bool is_checkpoint(const std::string& folder) { return exists(join_path(folder, "manifest.json")); }

namespace {

/// A checkpoint over the base that its run did not train.
class OverBase : public TensorReader {
 public:
  OverBase(std::unique_ptr<TensorReader> trained, std::unique_ptr<TensorReader> base)
      : trained_(std::move(trained)), base_(std::move(base)), both_(*trained_, *base_) {}
  bool has(const std::string& name) const override { return both_.has(name); }
  at::Tensor read(const std::string& name, const Slice& slice) override { return both_.read(name, slice); }

 private:
  std::unique_ptr<TensorReader> trained_, base_;
  LayeredTensors both_;
};

}  // namespace

ModelSource open_checkpoint_model(const std::string& folder) {
  auto reader = std::make_unique<CheckpointReader>(open_checkpoint(folder));
  std::string place = join_path(folder, kStateFile);
  Recipe recipe = parse_recipe(reader->recipe(), place);
  ModelSource source = model_from_config(reader->config(), place);
  std::string tokenizer = join_path(folder, "../../tokenizer");
  if (exists(tokenizer)) source.tokenizer_folder = tokenizer;
  source.adapters.assign(recipe.adapter().begin(), recipe.adapter().end());
  bool partly = recipe.adapter_size() + recipe.model().adapter_size() + recipe.trainable_size() > 0;
  if (!partly) {
    source.reader = std::move(reader);
    return source;
  }
  if (!recipe.model().has_load()) {
    throw Error::storage(folder, "holds the trained part of a model whose base was drawn")
        .remedy("load the base from a folder");
  }
  ModelSource base = model_source(recipe, any_vocabulary());
  source.tokenizer_folder = base.tokenizer_folder;
  source.reader = std::make_unique<OverBase>(std::move(reader), std::move(base.reader));
  return source;
}

}  // namespace echelon
