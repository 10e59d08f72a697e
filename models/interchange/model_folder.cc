#include "models/interchange/model_folder.h"

#include <algorithm>

#include "cluster/base/files.h"

namespace echelon {

namespace {

constexpr int64_t kMostConfigBytes = 16 << 20;

Json parse_config(const std::string& path, const std::string& place) {
  return parse_json(read_file(path, Error::Kind::input, kMostConfigBytes), place, Error::Kind::input);
}

void check_weights_are_there(const std::string& path) {
  if (exists(join_path(path, "model.safetensors")) || exists(join_path(path, "model.safetensors.index.json"))) return;
  for (const std::string& name : list_folder(path)) {
    if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth") || name.ends_with(".ckpt")) {
      throw Error::input(join_path(path, name),
                         "weights as a pickle are not read, because loading one runs code of its author")
          .expected("model.safetensors")
          .remedy("convert it with transformers: save_pretrained(…) of the loaded model");
    }
  }
  throw Error::input(path, "no weights").expected("model.safetensors or model.safetensors.index.json");
}

/// LayerNorm's parameters as the first releases called them.
std::string legacy_name(const std::string& name) {
  for (auto [now, before] : {std::pair{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}}) {
    if (name.ends_with(now)) return name.substr(0, name.size() - std::string_view(now).size()) + before;
  }
  return name;
}

}  // namespace

Json read_config(const std::string& path) { return parse_config(path, path); }

ModelFolder ModelFolder::open(const std::string& path) {
  if (!is_folder(path)) throw Error::input(path, "no such folder").expected("a Hugging Face model folder");
  ModelFolder folder;
  folder.path_ = path;
  folder.config_ = parse_config(file_inside(path, "config.json", Error::Kind::input), folder.config_place());
  folder.family_ = &find_family(json_string(folder.config_, "model_type", folder.config_place()), folder.config_place(),
                                Error::Kind::input);
  check_weights_are_there(path);
  folder.tensors_ = SafetensorsFolder::open(path);
  auto entries = folder.tensors_.entries();
  folder.has_prefix_ = std::any_of(entries.begin(), entries.end(), [&](const TensorEntry* entry) {
    return entry->name.starts_with(folder.family_->base_prefix);
  });
  return folder;
}

const TensorEntry* ModelFolder::find(const std::string& name) const {
  bool strip = !has_prefix_ && name.starts_with(family_->base_prefix);
  std::string stored = strip ? name.substr(family_->base_prefix.size()) : name;
  const TensorEntry* entry = tensors_.find(stored);
  return entry ? entry : tensors_.find(legacy_name(stored));
}

}  // namespace echelon
