// Sharded model folders: the index, the plan of shards, all shards seen as one.
#include <algorithm>
#include <set>
#include <utility>

#include "cluster/base/json.h"
#include "cluster/base/safetensors.h"

namespace echelon {

namespace {

constexpr int64_t index_limit_bytes = 256 << 20;
constexpr size_t most_shards = 100'000, most_tensors = 1'000'000;
constexpr char single_name[] = "model.safetensors", index_name[] = "model.safetensors.index.json";

void check_shard_name(const std::string& name, const std::string& tensor, const std::string& place, Error::Kind kind) {
  if (is_bare_name(name) && name.ends_with(".safetensors")) return;
  throw Error(kind, place, fmt::format("INDEX_PATH: shard of \"{}\" is not a bare file name", tensor))
      .got(fmt::format("\"{}\"", name.substr(0, 200)))
      .expected("a .safetensors file of the same folder");
}

std::string shortened(const std::set<std::string>& names) {
  constexpr size_t most = 8;
  std::string text;
  size_t shown = 0;
  for (const std::string& name : names) {
    if (shown++ == most) return text + fmt::format(" and {} more", names.size() - most);
    text += (text.empty() ? "" : ", ") + name;
  }
  return text.empty() ? "none" : text;
}

/// Pickles are never opened; a folder that has nothing else gets told so.
void refuse_pickles(const std::string& folder, Error::Kind kind) {
  for (const std::string& name : list_folder(folder)) {
    for (std::string_view ending : {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".distcp"}) {
      if (!name.ends_with(ending)) continue;
      throw Error(kind, join_path(folder, name), "PICKLE_REFUSED: a PyTorch pickle can run code when it is read")
          .remedy("convert it to safetensors where you trust it");
    }
  }
}

/// Every tensor stands in exactly the shard that the index says, and in no other.
void compare_with_index(const SafetensorsIndex& index, const std::vector<std::string>& shards,
                        const std::vector<SafetensorsFile>& files, const std::string& place, Error::Kind kind) {
  std::set<std::string> missing, unexpected;
  for (const auto& [name, shard] : index.weight_map) missing.insert(name);
  for (size_t i = 0; i < files.size(); ++i) {
    for (const TensorEntry& entry : files[i].entries()) {
      auto said = index.weight_map.find(entry.name);
      bool is_here = said != index.weight_map.end() && said->second == shards[i];
      if (is_here) missing.erase(entry.name);
      if (!is_here) unexpected.insert(fmt::format("{} (in {})", entry.name, shards[i]));
    }
  }
  if (missing.empty() && unexpected.empty()) return;
  throw Error(kind, place,
              fmt::format("INDEX: index and shards differ; in the index but not in its shard: {}; in a shard "
                          "but not there by the index: {}",
                          shortened(missing), shortened(unexpected)));
}

}  // namespace

SafetensorsIndex SafetensorsIndex::parse(std::string_view text, const std::string& place, Error::Kind kind) {
  Json json = parse_json(text, place, kind, 8);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    throw Error(kind, place, "INDEX: no weight_map");
  }
  SafetensorsIndex index;
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : json["weight_map"].get_ref<const Json::object_t&>()) {
    if (!shard.is_string())
      throw Error(kind, place, fmt::format("INDEX: shard of \"{}\" is not a string", tensor.substr(0, 200)));
    check_shard_name(shard.get_ref<const std::string&>(), tensor.substr(0, 200), place, kind);
    shards.insert(shard.get<std::string>());
    index.weight_map.emplace(tensor, shard.get<std::string>());
    if (shards.size() > most_shards) throw Error(kind, place, fmt::format("INDEX: more than {} shards", most_shards));
    if (index.weight_map.size() > most_tensors)
      throw Error(kind, place, fmt::format("INDEX: more than {} tensors", most_tensors));
  }
  if (index.weight_map.empty()) throw Error(kind, place, "INDEX: weight_map is empty");
  if (json.contains("metadata") && json["metadata"].is_object()) {
    const Json& metadata = json["metadata"];
    for (auto [key, value] :
         {std::pair("total_size", &index.total_size), {"total_parameters", &index.total_parameters}}) {
      if (metadata.contains(key) && metadata[key].is_number_integer()) *value = metadata[key].get<int64_t>();
    }
  }
  return index;
}

SafetensorsIndex SafetensorsIndex::read(const std::string& path, Error::Kind kind) {
  return parse(read_file(path, kind, index_limit_bytes), path, kind);
}

void SafetensorsIndex::write(const std::string& path) const {
  Json json = {{"metadata", {{"total_parameters", total_parameters}, {"total_size", total_size}}},
               {"weight_map", Json(weight_map)}};
  write_file_atomically(path, dump_json(json, 2) + "\n");
}

std::vector<std::vector<size_t>> plan_shards(const std::vector<int64_t>& sizes, int64_t limit) {
  std::vector<std::vector<size_t>> shards;
  std::vector<size_t> open;
  int64_t open_bytes = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] > limit) {
      shards.push_back({i});
      continue;
    }
    if (!open.empty() && open_bytes + sizes[i] > limit) {
      shards.push_back(std::exchange(open, {}));
      open_bytes = 0;
    }
    open.push_back(i);
    open_bytes += sizes[i];
  }
  if (!open.empty()) shards.push_back(std::move(open));
  return shards;
}

std::string shard_name(size_t shard, size_t shards) {
  return shards == 1 ? single_name : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
}

SafetensorsFolder SafetensorsFolder::open(const std::string& path, Error::Kind kind) {
  if (!is_folder(path)) throw Error(kind, path, exists(path) ? "is not a folder" : "no such folder");
  SafetensorsFolder folder;
  folder.path_ = path;
  folder.kind_ = kind;
  std::string index_path = join_path(path, index_name);
  if (exists(join_path(path, single_name))) {
    folder.files_.push_back(SafetensorsFile::open(file_inside(path, single_name, kind), kind));
  } else if (exists(index_path)) {
    folder.open_shards(SafetensorsIndex::read(file_inside(path, index_name, kind), kind), index_path);
  } else {
    refuse_pickles(path, kind);
    throw Error(kind, path, fmt::format("neither {} nor {} is there", single_name, index_name));
  }
  folder.build_index();
  return folder;
}

void SafetensorsFolder::open_shards(const SafetensorsIndex& index, const std::string& index_path) {
  std::set<std::string> distinct;
  for (const auto& [tensor, shard] : index.weight_map) distinct.insert(shard);
  std::vector<std::string> shards(distinct.begin(), distinct.end());
  for (const std::string& shard : shards) {
    files_.push_back(SafetensorsFile::open(file_inside(path_, shard, kind_), kind_));
  }
  compare_with_index(index, shards, files_, index_path, kind_);
}

void SafetensorsFolder::build_index() {
  for (const SafetensorsFile& file : files_) {
    for (const TensorEntry& entry : file.entries()) by_name_.emplace(entry.name, std::pair(&file, &entry));
  }
}

}  // namespace echelon
