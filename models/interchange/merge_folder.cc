#include "models/interchange/merge_folder.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/files.h"
#include "cluster/base/tiles.h"
#include "comm/session.h"
#include "comm/together.h"
#include "models/adapter_set.h"
#include "models/interchange/config_writer.h"
#include "models/interchange/folder_reader.h"
#include "models/interchange/residue_codec.h"
#include "models/interchange/staged_folder.h"
#include "models/interchange/tokenizer_files.h"

namespace echelon {

namespace {

constexpr const char* kRecord = "merge_record.safetensors";
constexpr int64_t kElementsAtOnce = 1 << 20;

using Bytes = std::vector<std::byte>;

/// Bytes by name, written as one safetensors file of U8 tensors and others.
struct RecordTensors {
  std::map<std::string, std::pair<TensorEntry, Bytes>> tensors;

  void put(const std::string& name, DType dtype, std::vector<int64_t> shape, const void* data, size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    tensors[name] = {{.name = name, .dtype = dtype, .shape = std::move(shape)}, Bytes(bytes, bytes + size)};
  }
  void put_all(const SafetensorsFile& file, const std::string& prefix) {
    for (const TensorEntry& entry : file.entries())
      put(prefix + entry.name, entry.dtype, entry.shape, file.data(entry), entry.size());
  }
  void write(const std::string& path, const std::map<std::string, std::string>& metadata) const {
    std::vector<TensorEntry> entries;
    for (const auto& [name, tensor] : tensors) entries.push_back(tensor.first);
    SafetensorsWriter writer(path, entries, metadata);
    for (const auto& [name, tensor] : tensors) writer.write(name, tensor.second.data(), tensor.second.size());
    writer.finish();
  }
};

/// The rules of an adapter by the names of stored tensors, with the place of each rule's part in it.
class StoredRules {
 public:
  /// Declares the model to find out what the adapter targets; nothing is allocated.
  StoredRules(const ModelFolder& folder, const ModelSource& source, AdapterSource adapter, const Registry& registry)
      : session_(Session::alone()),
        mesh_(session_.world(), {}),
        zero_(mesh_, {}),
        model_(source.architecture, zero_),
        adapters_(registry, family_of(source), {std::move(adapter)}, {}) {
    adapters_.attach(model_);
    adapters_.refuse_trained_base();
    rules_ = adapters_.merge_rules(model_);
    for (const MergeRule& rule : rules_) {
      if (source.architecture.tied && source.architecture.head &&
          rule.parameter == model_.token_embedding().weight().name()) {
        throw Error::input("adapter",
                           "changes the embedding, which the head shares: folded in, it would change the head, too");
      }
      for (const TensorPlace& place : family_of(source).places(rule.parameter)) {
        if (const TensorEntry* entry = folder.find(place.name)) by_name_[entry->name].push_back({place, &rule});
      }
    }
  }

  struct Part {
    TensorPlace place;
    const MergeRule* rule;
  };
  const std::vector<Part>* find(const std::string& stored) const {
    auto found = by_name_.find(stored);
    return found == by_name_.end() ? nullptr : &found->second;
  }

 private:
  Session session_;
  Mesh mesh_;
  Zero zero_;
  Model model_;
  AdapterSet adapters_;
  std::vector<MergeRule> rules_;
  std::map<std::string, std::vector<Part>> by_name_;  // of stored tensors
};

at::Tensor tensor_of(const TensorEntry& entry, const std::byte* data, const std::string& place) {
  at::Tensor values = at::empty(entry.shape, at::TensorOptions().dtype(weight_type(entry, place)));
  std::copy_n(data, entry.size(), static_cast<std::byte*>(values.data_ptr()));
  return values;
}

std::string hash_of(const at::Tensor& values) {
  return hash_bytes({static_cast<const std::byte*>(values.const_data_ptr()), values.nbytes()});
}

/// The part of a stored tensor as our matrix [out, in] or vector, a view.
at::Tensor part_of(const at::Tensor& stored, const TensorPlace& place) {
  int64_t length = stored.size(-1) / place.parts;
  at::Tensor part = stored.narrow(-1, place.part * length, length);
  return place.transposed ? part.t() : part;
}

int64_t rows_at_once(const at::Tensor& matrix) {
  return std::max<int64_t>(1, kElementsAtOnce / std::max<int64_t>(1, matrix.numel() / matrix.size(0)));
}

template <class Change>
void by_rows(const at::Tensor& matrix, const Change& change) {
  int64_t step = rows_at_once(matrix);
  for (int64_t row = 0; row < matrix.size(0); row += step) change(row, std::min(step, matrix.size(0) - row));
}

/// Folds one rule into its part of `stored`; the residue, and the scale that depended on W, go into the record.
void merge_part(const at::Tensor& stored, const StoredRules::Part& part, RecordTensors& record) {
  at::Tensor matrix = part_of(stored, part.place);
  std::vector<at::Tensor> residues, scales;
  by_rows(matrix, [&](int64_t row, int64_t rows) {
    at::Tensor exact = matrix.narrow(0, row, rows).contiguous(), scale;
    at::Tensor merged = part.rule->merged(exact, row, &scale).to(exact.scalar_type());
    if (!at::isfinite(merged).all().item<bool>() && at::isfinite(exact).all().item<bool>()) {
      throw Error::numerics(part.rule->parameter, "leaves the range of its dtype when the adapter is folded in");
    }
    if (scale.defined()) scales.push_back(scale);
    at::Tensor restored = part.rule->restored(merged, row, scale).to(exact.scalar_type());
    residues.push_back(residue_of(exact, restored).reshape({-1}));
    matrix.narrow(0, row, rows).copy_(merged);
  });
  std::string where = part.place.name + "/" + part.rule->parameter;
  Bytes packed = pack_residue(at::cat(residues));
  record.put("residue." + where, DType::U8, {static_cast<int64_t>(packed.size())}, packed.data(), packed.size());
  if (scales.empty()) return;
  at::Tensor scale = at::cat(scales).contiguous();
  record.put("scale." + where, DType::F64, scale.sizes().vec(), scale.const_data_ptr(), scale.nbytes());
}

void restore_part(const at::Tensor& stored, const StoredRules::Part& part, const SafetensorsFile& record,
                  const std::string& place) {
  at::Tensor matrix = part_of(stored, part.place), scale;
  std::string where = part.place.name + "/" + part.rule->parameter;
  const TensorEntry& packed = record.at("residue." + where);
  at::Tensor residue = unpack_residue(record.data(packed), packed.size(), matrix.numel(), place);
  if (part.rule->row_lengths.defined()) {
    const TensorEntry& entry = record.at("scale." + where);
    if (entry.shape != std::vector<int64_t>{matrix.size(0), 1} || entry.dtype != DType::F64)
      throw Error::input(place, "a scale has the wrong shape");
    scale = tensor_of(entry, record.data(entry), place);
  }
  int64_t width = matrix.numel() / matrix.size(0);
  by_rows(matrix, [&](int64_t row, int64_t rows) {
    at::Tensor merged = matrix.narrow(0, row, rows).contiguous();
    at::Tensor used = scale.defined() ? scale.narrow(0, row, rows) : scale;
    at::Tensor rounded = part.rule->restored(merged, row, used).to(merged.scalar_type());
    at::Tensor exact = apply_residue(rounded, residue.narrow(0, row * width, rows * width).view(rounded.sizes()));
    matrix.narrow(0, row, rows).copy_(exact);
  });
}

/// Copies a model folder file by file, each rank its share, and lets `change` see every tensor that has rules.
class FolderCopy {
 public:
  using Change = std::function<void(const TensorEntry&, const at::Tensor&, const std::vector<StoredRules::Part>&)>;

  FolderCopy(const std::string& from, const StoredRules& rules, StagedFolder& to, const Group& world)
      : from_(from), rules_(rules), to_(to), world_(world) {}

  void run(const Change& change) const {
    std::vector<std::string> files;
    for (const std::string& name : list_folder(from_)) {
      if (name.starts_with("model") && name.ends_with(".safetensors")) files.push_back(name);
    }
    std::sort(files.begin(), files.end());
    for (size_t i = world_.rank(); i < files.size(); i += world_.size()) copy(files[i], change);
    if (world_.rank() == 0) copy_small_files();
  }

 private:
  void copy(const std::string& name, const Change& change) const {
    std::string place = join_path(from_, name);
    SafetensorsFile file = SafetensorsFile::open(place);
    SafetensorsWriter writer(to_.path(name), file.entries(), file.metadata());
    for (const TensorEntry& entry : file.entries()) {
      const auto* parts = rules_.find(entry.name);
      if (!parts) {
        writer.write(entry.name, file.data(entry), entry.size());
        continue;
      }
      at::Tensor values = tensor_of(entry, file.data(entry), place);
      change(entry, values, *parts);
      writer.write(entry.name, values.const_data_ptr(), values.nbytes());
    }
    writer.finish();
  }

  void copy_small_files() const {
    constexpr int64_t kLimit = 100 << 20;
    for (const char* name : {"config.json", "generation_config.json", "model.safetensors.index.json"}) {
      std::string path = join_path(from_, name);
      if (exists(path)) write_file_atomically(to_.path(name), read_file(path, Error::Kind::input, kLimit));
    }
    if (has_tokenizer(from_)) copy_tokenizer(from_, to_.path());
  }

  const std::string& from_;
  const StoredRules& rules_;
  StagedFolder& to_;
  const Group& world_;
};

std::string part_file(int rank) { return fmt::format("merge_record-{}.safetensors", rank); }

void check_base(const std::string& base, const PeftFolder& adapter) {
  std::string hash = adapter.config().text("echelon_base_hash", "");
  if (hash.empty() || hash == hash_of_model(base)) return;
  throw Error::input(adapter.path(), "was trained on another base than " + base)
      .remedy("name the model in its base_model_name_or_path");
}

Json parse_hashes(const SafetensorsFile& record, const std::string& key, const std::string& place) {
  auto found = record.metadata().find(key);
  if (found == record.metadata().end()) throw Error::input(place, fmt::format("does not say {}", key));
  return parse_json(found->second, place);
}

}  // namespace

std::string hash_of_model(const std::string& folder) {
  ModelFolder model = ModelFolder::open(folder);
  std::string text;
  for (const TensorEntry* entry : model.tensors().entries()) {
    text += fmt::format("{} {} [{}] {}\n", entry->name, dtype_name(entry->dtype), fmt::join(entry->shape, ","),
                        hash_bytes({model.tensors().data(*entry), entry->size()}));
  }
  return hash_bytes(std::as_bytes(std::span(text)));
}

void merge_folder(const std::string& base, const std::string& adapter, const std::string& out, const Registry& registry,
                  const Group& world) {
  std::optional<StoredRules> rules;
  std::shared_ptr<const PeftFolder> folder;
  on_every_rank(world, adapter, [&] {
    ModelSource source = open_model(base);
    AdapterSource given = adapter_source(adapter, registry);
    folder = given.folder;
    if (exists(join_path(base, kRecord))) throw Error::input(base, "is merged already").remedy("unmerge it first");
    if (world.rank() == 0) check_base(base, *folder);
    rules.emplace(ModelFolder::open(base), source, std::move(given), registry);
  });
  StagedFolder staged(out, world);
  on_every_rank(world, out, [&] {
    RecordTensors mine;
    Json base_hashes = Json::object(), merged_hashes = Json::object();
    FolderCopy(base, *rules, staged, world)
        .run([&](const TensorEntry& entry, const at::Tensor& values, const auto& parts) {
          base_hashes[entry.name] = hash_of(values);
          for (const StoredRules::Part& part : parts) merge_part(values, part, mine);
          merged_hashes[entry.name] = hash_of(values);
        });
    mine.write(staged.path(part_file(world.rank())),
               {{"base", dump_json(base_hashes)}, {"merged", dump_json(merged_hashes)}});
  });
  on_first_rank(world, out, [&] {
    RecordTensors record;
    Json base_hashes = Json::object(), merged_hashes = Json::object();
    for (int rank = 0; rank < world.size(); ++rank) {
      std::string path = staged.path(part_file(rank));
      SafetensorsFile part = SafetensorsFile::open(path);
      record.put_all(part, "");
      base_hashes.update(parse_hashes(part, "base", path));
      merged_hashes.update(parse_hashes(part, "merged", path));
      std::filesystem::remove(path);
    }
    record.put_all(folder->tensors(), "adapter.");
    record.write(staged.path(kRecord), {{"format", "pt"},
                                        {"echelon_merge", "1"},
                                        {"adapter_config", dump_json(folder->json())},
                                        {"base", dump_json(base_hashes, {.sort_keys = true})},
                                        {"merged", dump_json(merged_hashes, {.sort_keys = true})}});
    staged.commit();
    return std::string();
  });
}

void unmerge_folder(const std::string& merged, const std::string& out, const Registry& registry, const Group& world) {
  std::string place = join_path(merged, kRecord);
  std::optional<StoredRules> rules;
  std::optional<SafetensorsFile> record;
  Json base_hashes, merged_hashes;
  on_every_rank(world, merged, [&] {
    ModelSource source = open_model(merged);
    if (!exists(place)) throw Error::input(merged, "was not merged by Echelon: it has no merge_record.safetensors");
    record = SafetensorsFile::open(place);
    base_hashes = parse_hashes(*record, "base", place);
    merged_hashes = parse_hashes(*record, "merged", place);
    AdapterSource given = adapter_source(PeftFolder::in_record(SafetensorsFile::open(place), place), registry);
    rules.emplace(ModelFolder::open(merged), source, std::move(given), registry);
  });
  StagedFolder staged(out, world);
  on_every_rank(world, out, [&] {
    FolderCopy(merged, *rules, staged, world)
        .run([&](const TensorEntry& entry, const at::Tensor& values, const auto& parts) {
          if (merged_hashes.value(entry.name, "") != hash_of(values)) {
            throw Error::input(merged, fmt::format("tensor \"{}\" was changed since the merge", entry.name));
          }
          for (auto part = parts.rbegin(); part != parts.rend(); ++part) restore_part(values, *part, *record, place);
          if (base_hashes.value(entry.name, "") != hash_of(values)) {
            throw Error::input(place, fmt::format("does not give back tensor \"{}\"", entry.name));
          }
        });
  });
  on_first_rank(world, out, [&] {
    staged.commit();
    return std::string();
  });
}

}  // namespace echelon
