#include "launch/rank/forward.h"

#include <map>

#include <ATen/ATen.h>

#include "cluster/base/safetensors.h"
#include "launch/rank/commands.h"
#include "launch/rank/forward_inputs.h"
#include "launch/rank/loaded_model.h"
#include "models/interchange/stored_form.h"

namespace echelon {

namespace {

using NamedTensors = std::map<std::string, at::Tensor>;

/// All rows from the ranks' shares.
at::Tensor whole_batch(const at::Tensor& mine, int64_t rows, const Group& dp, const std::string& name) {
  if (mine.size(0) == rows) return mine;
  std::vector<int64_t> sizes = mine.sizes().vec();
  sizes[0] = rows;
  at::Tensor all = at::empty(sizes, mine.options());
  dp.all_gather(mine.contiguous(), all, {.name = name, .purpose = Purpose::activations}).wait();
  return all;
}

NamedTensors outputs_of(LoadedModel& loaded, const Batch& batch) {
  const Group& dp = loaded.mesh.dp();
  Batch share = share_of(batch, dp.rank(), dp.size()).on(dp.device());
  Outputs outputs = loaded.model.forward(share, loaded.model.pass(share, Seed(0), /*training=*/false));
  NamedTensors named;
  for (auto& [name, values] : {std::pair{"last_hidden_state", outputs.last_hidden_state},
                               {"logits", outputs.logits},
                               {"pooler_output", outputs.pooled}}) {
    if (values.defined()) named[name] = whole_batch(values, batch.size(), dp, name);
  }
  return named;
}

/// Gradients of the mean cross-entropy, by the names of transformers' parameters, on every rank.
NamedTensors gradients_of(LoadedModel& loaded, const Batch& batch) {
  const Group& dp = loaded.mesh.dp();
  Batch share = share_of(batch, dp.rank(), dp.size()).on(dp.device());
  Weights& weights = loaded.model.weights();
  for (FlatShard* shard : weights.trained()) shard->forget_gradients();
  at::Tensor sum = loaded.model.loss_sum(share, loaded.model.pass(share, Seed(0), /*training=*/false));
  (sum / static_cast<double>(batch.targets)).backward();
  for (FlatShard* shard : weights.trained()) shard->sum_partial_gradients();

  StoredForm form(find_family(loaded.source.config.at("model_type"), "config", Error::Kind::internal),
                  loaded.model.architecture());
  NamedTensors named;
  weights.visit_whole([](FlatShard& shard) { return shard.gradient(); },
                      [&](const Parameter& parameter, const at::Tensor& whole) {
                        // Where two copies stand in a checkpoint, the last is the one that the model computes with.
                        TensorPlace place = form.places(parameter.name()).back();
                        at::Tensor gradient = form.put(place, whole.clone());
                        if (gradient.defined()) named["grad." + place.name] = gradient;
                      });
  return named;
}

void write_tensors(const std::string& path, const NamedTensors& tensors) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, values] : tensors)
    entries.push_back({.name = name, .dtype = DType::F32, .shape = values.sizes().vec()});
  SafetensorsWriter writer(path, entries, {{"format", "pt"}});
  for (const auto& [name, values] : tensors) {
    at::Tensor single = values.to(at::kCPU, at::kFloat).contiguous();
    writer.write(name, single.const_data_ptr(), single.nbytes());
  }
  writer.finish();
}

}  // namespace

void forward(const ForwardArguments& arguments, const Group& world) {
  ModelSource source = open_folder_or_checkpoint(arguments.model);
  Batch batch = read_forward_inputs(arguments.input, source.architecture);
  if (arguments.gradients) {
    if (!batch.has("labels"))
      throw Error::input(arguments.input, "\"labels\" is missing").remedy("gradients are those of a loss");
    if (!source.architecture.head) throw Error::input(arguments.model, "a bare model has no loss to take gradients of");
    align_labels(batch, source.architecture.causal);
  }
  Recipe layout = arguments.layout;
  layout.set_precision(arguments.precision);
  LoadedModel loaded(std::move(source), world, layout, arguments.adapter);
  if (arguments.merge_adapters) merge_adapters(loaded.model, *loaded.adapters, arguments.model, arguments.adapter);
  NamedTensors tensors = outputs_of(loaded, batch);
  if (arguments.gradients) tensors.merge(gradients_of(loaded, batch));
  if (world.rank() == 0) write_tensors(arguments.output, tensors);
}

int run_forward(const CommandLine& line, Session& session) {
  forward(forward_arguments(line), session.world());
  return 0;
}

}  // namespace echelon
