#include "launch/rank/loaded_model.h"

#include <ATen/ATen.h>

#include "comm/together.h"
#include "models/interchange/base_hash.h"
#include "runtime/build.h"
#include "runtime/checkpoint/load.h"
#include "runtime/trainer.h"

namespace echelon {

namespace {

/// The architecture, checked before anything is allocated.
const Architecture& divisible(const ModelSource& source, const Mesh& mesh) {
  check_tensor_parallel(source.architecture, mesh.tp().size());
  return source.architecture;
}

}  // namespace

LoadedModel::LoadedModel(ModelSource given, const Group& world, const Recipe& layout, const std::string& adapter)
    : source(std::move(given)),
      mesh(world, {.dp = layout.mesh().dp(), .tp = layout.mesh().tp(), .replicas = layout.mesh().replicas()}),
      zero(mesh, zero_options(layout)),
      model(divisible(source, mesh), zero) {
  register_builtin_methods(registry);
  Recipe recipe;
  if (!adapter.empty()) recipe.mutable_model()->add_adapter(adapter);
  adapters = adapter_set(recipe, source, registry);
  adapters->attach(model);
  model.allocate();
  load_weights(model, source, Seed(0));
  adapters->load(model);
}

void merge_adapters(Model& model, const AdapterSet& adapters, const std::string& base, const std::string& adapter) {
  if (adapters.empty()) {
    throw Error::usage("--merge_adapters", "there is no adapter to fold in").remedy("name its folder with --adapter");
  }
  on_first_rank(model.weights().units.front()->zero().mesh.world(), adapter, [&] {
    if (!adapter.empty() && !is_checkpoint(base)) check_base(base, PeftFolder::open(adapter));
    return std::string();
  });
  adapters.fold_into(model);
}

ModelSource open_folder_or_checkpoint(const std::string& path) {
  return is_checkpoint(path) ? open_checkpoint_model(path) : open_model(path);
}

}  // namespace echelon
