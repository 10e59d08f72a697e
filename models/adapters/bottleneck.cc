// Small feed-forward networks beside or behind the sublayers. Sources: Houlsby et al. 2019, Pfeiffer et al. 2021, He et
// al. 2022.
#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/registry.h"
#include "models/adapter.h"
#include "models/adapters/bottleneck.pb.h"

namespace echelon {

namespace {

struct Projections {
  const Parameter *down, *down_bias, *up, *up_bias;
};

at::Tensor activated(const at::Tensor& x, Bottleneck::Activation activation) {
  switch (activation) {
    case Bottleneck::RELU:
      return at::relu(x);
    case Bottleneck::GELU:
      return at::gelu(x);
    case Bottleneck::SILU:
      return at::silu(x);
    case Bottleneck::NONE:
      return x;
  }
  throw Error::internal("activation", "unknown");
}

class BottleneckBranch : public Branch {
 public:
  BottleneckBranch(const Projections& weights, const Bottleneck& options) : weights_(weights), options_(options) {}
  at::Tensor output(const at::Tensor& input, const at::Tensor& output, const Pass&) const override {
    at::Tensor narrow = linear(options_.parallel() ? input : output, *weights_.down, weights_.down_bias);
    at::Tensor added = linear(activated(narrow, options_.activation()), *weights_.up, weights_.up_bias);
    return output.add(added, options_.scale());
  }

 private:
  Projections weights_;
  const Bottleneck& options_;
};

class Bottlenecks : public Adapter {
 public:
  explicit Bottlenecks(const Bottleneck& options) : options_(options) {
    if (options_.width() < 1) throw Error::recipe("adapter.Bottleneck.width", "must be at least 1");
  }

  void attach(Model& model) override {
    check_layers(model.architecture().layers);
    model_width_ = model.architecture().width;
    for (size_t layer = 0; layer < model.blocks().size(); ++layer) {
      if (!is_chosen(static_cast<int64_t>(layer))) continue;
      Block& block = *model.blocks()[layer];
      if (options_.placement() != Bottleneck::AFTER_FEED_FORWARD) block.attach_after_attention(add(block, "attention"));
      if (options_.placement() != Bottleneck::AFTER_ATTENTION)
        block.attach_after_feed_forward(add(block, "feed_forward"));
    }
  }

  Json peft_config() const override {
    return {{"peft_type", "BOTTLENECK"},
            {"written_by", "Echelon; PEFT has no such method"},
            {"bottleneck_width", options_.width()},
            {"placement", Bottleneck::Placement_Name(options_.placement())},
            {"parallel", options_.parallel()},
            {"activation", Bottleneck::Activation_Name(options_.activation())},
            {"scale", options_.scale()},
            {"layers_to_transform", std::vector<int64_t>(options_.layers().begin(), options_.layers().end())}};
  }

  std::vector<AdapterTensor> peft_tensors() const override {
    std::vector<AdapterTensor> all;
    for (const Parameter* tensor : tensors_) {
      std::string key = tensor->name().substr(fmt::format("adapters.{}.", options_.name()).size());
      all.push_back({.key = key, .parts = {{tensor->name()}}, .shape = tensor->layout().sizes});
    }
    return all;
  }

 private:
  bool is_chosen(int64_t layer) const {
    return options_.layers_size() == 0 ||
           std::find(options_.layers().begin(), options_.layers().end(), layer) != options_.layers().end();
  }

  void check_layers(int64_t layers) const {
    for (int64_t layer : options_.layers()) {
      if (layer >= 0 && layer < layers) continue;
      throw Error::recipe("adapter.Bottleneck.layers", fmt::format("{} is no layer", layer))
          .expected(fmt::format("0 to {}", layers - 1));
    }
  }

  const Branch& add(Block& block, const char* sublayer) {
    std::string name = fmt::format("adapters.{}.{}.{}.bottleneck.", options_.name(), block.name(), sublayer);
    int64_t wide = model_width_, narrow = options_.width();
    auto tensor = [&](const char* what, std::vector<int64_t> sizes, Init init) {
      tensors_.push_back(&block.unit().add(name + what, Layout::replicated(std::move(sizes)), init));
      return tensors_.back();
    };
    Projections weights{
        .down = tensor("down.weight", {narrow, wide}, {.bound = 1 / std::sqrt(static_cast<double>(wide))}),
        .down_bias = tensor("down.bias", {narrow}, {}),
        .up = tensor("up.weight", {wide, narrow}, {}),
        .up_bias = tensor("up.bias", {wide}, {})};
    return *branches_.emplace_back(std::make_unique<BottleneckBranch>(weights, options_));
  }

  Bottleneck options_;
  int64_t model_width_ = 0;
  std::vector<const Parameter*> tensors_;
  std::vector<std::unique_ptr<BottleneckBranch>> branches_;
};

template <class Enum>
Enum named(const ConfigReader& config, const char* key, bool (*parse)(google::protobuf::ConstStringParam, Enum*),
           Enum otherwise) {
  Enum value = otherwise;
  std::string text = config.text(key, "");
  if (!text.empty() && !parse(text, &value)) throw config.mistake(key, "unknown value").got(text);
  return value;
}

google::protobuf::Any bottleneck_of(const ConfigReader& config) {
  Bottleneck options;
  options.set_width(config.size("bottleneck_width", 64));
  options.set_placement(named(config, "placement", &Bottleneck::Placement_Parse, Bottleneck::BOTH));
  options.set_parallel(config.flag("parallel", false));
  options.set_activation(named(config, "activation", &Bottleneck::Activation_Parse, Bottleneck::RELU));
  options.set_scale(config.number("scale", -1e12, 1e12, 1));
  for (int64_t layer : config.sizes("layers_to_transform")) options.add_layers(layer);
  return packed(options);
}

}  // namespace

void register_bottleneck(Registry& registry) {
  registry.add<Adapter, Bottleneck>(
      [](const Bottleneck& options, const Adapter::Context&) { return std::make_unique<Bottlenecks>(options); });
  registry.add_fact("BOTTLENECK", PeftType{bottleneck_of});
}

}  // namespace echelon
