// PEFT adapter folders in and out.
#pragma once

#include <string>
#include <vector>

#include "cluster/base/safetensors.h"
#include "comm/group.h"
#include "models/adapter.h"

namespace echelon {

/// `adapter_config.json` and `adapter_model.safetensors`, checked but for what only the model can tell.
class PeftFolder {
 public:
  /// Errors: Error::input when it is no folder, a file is missing or damaged, or the weights are a pickle.
  static PeftFolder open(const std::string& path);

  /// The adapter that a merge record keeps: its config in the metadata, its tensors behind "adapter.".
  static PeftFolder in_record(SafetensorsFile record, const std::string& path);

  const std::string& path() const { return path_; }
  const Json& json() const { return config_; }
  const SafetensorsFile& tensors() const { return tensors_; }
  ConfigReader config() const { return {config_, path_ + "/adapter_config.json", Error::Kind::input}; }

  /// Those of `tensors` that it holds. A tensor of a module that an adapter wraps stands behind "base_layer".
  std::vector<AdapterTensor> among(const std::vector<AdapterTensor>& tensors) const;
  /// The whole values of all our tensors in `tensors`. Errors: Error::input with lists of missing and unexpected
  /// tensors, or naming one whose shape or dtype is wrong.
  WholeTensors read(const std::vector<AdapterTensor>& tensors, const Weights& weights) const;

 private:
  std::string path_, prefix_;
  Json config_;
  SafetensorsFile tensors_;
};

/// Writes whole tensors, which every rank has, from rank 0. Errors: Error::storage, on every rank.
void write_peft_folder(const std::string& folder, const Json& config, const std::vector<AdapterTensor>& tensors,
                       const WholeTensors& values, const Group& world);

}  // namespace echelon
