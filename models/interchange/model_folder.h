// A model folder as it lies on disk: its config, and its tensors by the family's names.
#pragma once

#include <string>
#include <vector>

#include "cluster/base/safetensors.h"
#include "models/interchange/family.h"

namespace echelon {

class ModelFolder {
 public:
  /// Errors: Error::input when it is no folder, config.json or the weights are missing or damaged, or weights are a
  /// pickle.
  static ModelFolder open(const std::string& path);

  const std::string& path() const { return path_; }
  std::string config_place() const { return join_path(path_, "config.json"); }
  const Json& config() const { return config_; }
  const Family& family() const { return *family_; }
  const SafetensorsFolder& tensors() const { return tensors_; }

  /// The stored tensor of a name in the language model's spelling, also where the checkpoint has no base prefix or says
  /// gamma and beta; null when there is none.
  const TensorEntry* find(const std::string& name) const;
  /// Whether tensors carry the family's base prefix, as a language model's do.
  bool has_prefix() const { return has_prefix_; }

 private:
  std::string path_;
  Json config_;
  const Family* family_ = nullptr;
  SafetensorsFolder tensors_;
  bool has_prefix_ = false;
};

/// config.json of a folder, or any file with a config. Errors: Error::input.
Json read_config(const std::string& path);

}  // namespace echelon
