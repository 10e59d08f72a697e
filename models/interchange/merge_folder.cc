#include "models/interchange/merge_folder.h"

#include <algorithm>
#include <filesystem>
#include <list>
#include <optional>
#include <span>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/files.h"
#include "cluster/base/mapped_pages.h"
#include "cluster/base/tiles.h"
#include "comm/session.h"
#include "comm/together.h"
#include "models/adapter_set.h"
#include "models/interchange/base_hash.h"
#include "models/interchange/folder_reader.h"
#include "models/interchange/residue_codec.h"
#include "models/interchange/staged_folder.h"
#include "models/interchange/tokenizer_files.h"

namespace echelon {

namespace {

constexpr const char* kRecord = "merge_record.safetensors";

using Bytes = std::vector<std::byte>;

/// Tensors by name, written as one safetensors file.
class RecordTensors {
 public:
  void put(const std::string& name, DType dtype, std::vector<int64_t> shape, Bytes bytes) {
    const Bytes& kept = owned_.emplace_back(std::move(bytes));
    tensors_[name] = {{.name = name, .dtype = dtype, .shape = std::move(shape)}, std::span(kept)};
  }
  /// `file` must outlive this.
  void put_all(const SafetensorsFile& file, const std::string& prefix) {
    for (const TensorEntry& entry : file.entries()) {
      std::string name = prefix + entry.name;
      tensors_[name] = {{.name = name, .dtype = entry.dtype, .shape = entry.shape},
                        std::span(file.data(entry), entry.size())};
    }
  }
  void write(const std::string& path, const std::map<std::string, std::string>& metadata) const {
    std::vector<TensorEntry> entries;
    for (const auto& [name, tensor] : tensors_) entries.push_back(tensor.first);
    SafetensorsWriter writer(path, entries, metadata);
    for (const auto& [name, tensor] : tensors_) {
      writer.write(name, tensor.second.data(), tensor.second.size());
    }
    writer.finish();
  }

 private:
  std::map<std::string, std::pair<TensorEntry, std::span<const std::byte>>> tensors_;
  std::list<Bytes> owned_;
};

/// The rules of an adapter by the names of stored tensors, with the place of each rule's part in it.
class StoredRules {
 public:
  StoredRules(const ModelFolder& folder, const ModelSource& source, AdapterSource adapter, const Registry& registry)
      : rules_(rules_of_folder(std::move(adapter), source, registry)) {
    for (const MergeRule& rule : rules_) {
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
  /// Declares the model to find out what the adapter targets; nothing is allocated.
  static std::vector<MergeRule> rules_of_folder(AdapterSource adapter, const ModelSource& source,
                                                const Registry& registry) {
    Session session = Session::alone();
    Mesh mesh(session.world(), {});
    Zero zero(mesh, {});
    Model model(source.architecture, zero);
    AdapterSet adapters(registry, family_of(source), {std::move(adapter)}, {});
    adapters.attach(model);
    adapters.refuse_trained_base();
    return adapters.stored_merge_rules(model);
  }

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

/// The part of a stored tensor as our matrix [out, in], or as a vector of one column; a view.
at::Tensor part_of(const at::Tensor& stored, const TensorPlace& place) {
  int64_t length = stored.size(-1) / place.parts;
  at::Tensor part = stored.narrow(-1, place.part * length, length);
  if (part.dim() == 1) return part.unsqueeze(1);
  return place.transposed ? part.t() : part;
}

/// Calls `change` with some rows after the other, and where they stand in `matrix`.
template <class Change>
void by_rows(const at::Tensor& matrix, const Change& change) {
  int64_t step = rows_at_once(matrix.size(1));
  for (int64_t row = 0; row < matrix.size(0); row += step) {
    int64_t rows = std::min(step, matrix.size(0) - row);
    change(matrix.narrow(0, row, rows), Slice{{row, 0}, {rows, matrix.size(1)}});
  }
}

/// Folds one rule into its part of `stored`; the residue, and the scale that depended on W, go into the record.
void merge_part(const at::Tensor& stored, const StoredRules::Part& part, RecordTensors& record) {
  ResiduePacker residue;
  std::vector<at::Tensor> scales;
  by_rows(part_of(stored, part.place), [&](const at::Tensor& rows, const Slice& where) {
    at::Tensor scale;
    if (!fold_in(*part.rule, rows, where, &scale, &residue)) throw leaves_range(part.rule->parameter);
    if (scale.defined()) scales.push_back(scale);
  });
  std::string where = part.place.name + "/" + part.rule->parameter;
  Bytes packed = residue.finish();
  auto size = static_cast<int64_t>(packed.size());
  record.put("residue." + where, DType::U8, {size}, std::move(packed));
  if (scales.empty()) return;
  at::Tensor scale = at::cat(scales).contiguous();
  const auto* bytes = static_cast<const std::byte*>(scale.const_data_ptr());
  record.put("scale." + where, DType::F64, scale.sizes().vec(), Bytes(bytes, bytes + scale.nbytes()));
}

void restore_part(const at::Tensor& stored, const StoredRules::Part& part, const SafetensorsFile& record,
                  const std::string& place) {
  at::Tensor matrix = part_of(stored, part.place), scale;
  std::string name = part.place.name + "/" + part.rule->parameter;
  const TensorEntry& packed = record.at("residue." + name);
  ResidueUnpacker residue(record.data(packed), packed.size(), place);
  if (part.rule->row_lengths.defined()) {
    const TensorEntry& entry = record.at("scale." + name);
    if (entry.shape != std::vector<int64_t>{matrix.size(0), 1} || entry.dtype != DType::F64)
      throw Error::input(place, "a scale has the wrong shape");
    scale = tensor_of(entry, record.data(entry), place);
  }
  by_rows(matrix, [&](const at::Tensor& rows, const Slice& where) {
    at::Tensor used = scale.defined() ? scale.narrow(0, where.offsets[0], where.sizes[0]) : scale;
    take_out(*part.rule, rows, where, used, residue.next(rows.numel()));
  });
  residue.finish();
  forget_pages(record.data(packed), packed.size());
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
    SafetensorsFile file = SafetensorsFile::open(file_inside(from_, name, Error::Kind::input));
    SafetensorsWriter writer(to_.path(name), file.entries(), file.metadata());
    for (const TensorEntry& entry : file.entries()) {
      const auto* parts = rules_.find(entry.name);
      if (!parts) {
        writer.write(entry.name, file.data(entry), entry.size());
        forget_pages(file.data(entry), entry.size());
        continue;
      }
      at::Tensor values = tensor_of(entry, file.data(entry), place);
      forget_pages(file.data(entry), entry.size());
      change(entry, values, *parts);
      writer.write(entry.name, values.const_data_ptr(), values.nbytes());
    }
    writer.finish();
  }

  void copy_small_files() const {
    constexpr int64_t kLimit = 100 << 20;
    for (const char* name : {"config.json", "generation_config.json", "model.safetensors.index.json"}) {
      if (!exists(join_path(from_, name))) continue;
      std::string path = file_inside(from_, name, Error::Kind::input);
      write_file_atomically(to_.path(name), read_file(path, Error::Kind::input, kLimit));
    }
    if (has_tokenizer(from_)) copy_tokenizer(from_, to_.path());
  }

  const std::string& from_;
  const StoredRules& rules_;
  StagedFolder& to_;
  const Group& world_;
};

std::string part_file(int rank) { return fmt::format("merge_record-{}.safetensors", rank); }

Json parse_hashes(const SafetensorsFile& record, const std::string& key, const std::string& place) {
  auto found = record.metadata().find(key);
  if (found == record.metadata().end()) throw Error::input(place, fmt::format("does not say {}", key));
  Json hashes = parse_json(found->second, place);
  bool fits =
      hashes.is_object() && std::all_of(hashes.begin(), hashes.end(), [](const Json& h) { return h.is_string(); });
  if (!fits) throw Error::input(place, fmt::format("{} is no list of hashes", key));
  return hashes;
}

}  // namespace

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
    std::list<SafetensorsFile> parts;
    RecordTensors record;
    Json base_hashes = Json::object(), merged_hashes = Json::object();
    for (int rank = 0; rank < world.size(); ++rank) {
      std::string path = staged.path(part_file(rank));
      const SafetensorsFile& part = parts.emplace_back(SafetensorsFile::open(path));
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
