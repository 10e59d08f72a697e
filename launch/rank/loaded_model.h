// A model with its weights on this job's ranks, for commands that do not train.
#pragma once

#include <string>

#include "comm/mesh.h"
#include "models/adapter_set.h"
#include "models/interchange/interchange.h"
#include "models/model.h"
#include "runtime/recipe/recipe.pb.h"
#include "sharding/zero.h"

namespace echelon {

/// Mesh, ZeRO and model, in the order in which they depend on each other, with the source's values. Collective.
struct LoadedModel {
  /// Of `layout`, mesh, sharding and precision mean something. Errors: Error::recipe when tp does not divide the heads.
  /// `adapter`: a PEFT folder laid over the source; empty: none.
  LoadedModel(ModelSource source, const Group& world, const Recipe& layout, const std::string& adapter = "");

  ModelSource source;
  Registry registry;
  std::unique_ptr<AdapterSet> adapters;
  Mesh mesh;
  Zero zero;
  Model model;
};

/// Folds what --adapter names, or a checkpoint brings, into the weights of `base`. Collective. Errors: Error::usage
/// when there is no adapter; Error::input when it cannot be folded in or was trained on another base.
void merge_adapters(Model& model, const AdapterSet& adapters, const std::string& base, const std::string& adapter);

/// A Hugging Face folder or a checkpoint. Errors: Error::input, Error::storage.
ModelSource open_folder_or_checkpoint(const std::string& path);

}  // namespace echelon
