// Learnt keys and values in front of every sequence. Source: Li and Liang 2021.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/registry.h"
#include "models/adapter.h"
#include "models/adapters/prefix_tuning.pb.h"

namespace echelon {

namespace {

/// Of one layer; keys and values are [tokens, kv_heads * head_width], split over `tp` by heads.
class Prefix : public ExtraKeysValues {
 public:
  Prefix(const Parameter& keys, const Parameter& values, int64_t head_width)
      : keys_(keys), values_(values), head_width_(head_width) {}
  int64_t tokens() const override { return keys_.layout().sizes[0]; }
  std::pair<at::Tensor, at::Tensor> keys_values() const override { return {by_heads(keys_), by_heads(values_)}; }

 private:
  at::Tensor by_heads(const Parameter& flat) const {
    return flat.use().reshape({tokens(), -1, head_width_}).transpose(0, 1);
  }

  const Parameter &keys_, &values_;
  int64_t head_width_;
};

class Prefixes : public Adapter {
 public:
  explicit Prefixes(const PrefixTuning& options) : options_(options) {
    if (options_.tokens() < 1) throw Error::recipe("adapter.PrefixTuning.tokens", "must be at least 1");
  }

  void attach(Model& model) override {
    const Architecture& a = model.architecture();
    kv_heads_ = a.kv_heads;
    width_ = a.kv_heads * a.head_width;
    for (const auto& block : model.blocks()) {
      Layout layout = Layout::sharded({options_.tokens(), width_}, 1, "tp");
      Init init{.standard_deviation = options_.initializer_range()};
      std::string name = fmt::format("adapters.{}.{}.attention.prefix_", options_.name(), block->name());
      Parameter& keys = block->unit().add(name + "keys", layout, init);
      Parameter& values = block->unit().add(name + "values", layout, init);
      names_.insert(names_.end(), {keys.name(), values.name()});
      prefixes_.push_back(std::make_unique<Prefix>(keys, values, a.head_width));
      block->attention().attach(*prefixes_.back());
    }
    model.add_extra_keys(options_.tokens());
  }

  Json peft_config() const override {
    return {{"peft_type", "PREFIX_TUNING"},
            {"num_virtual_tokens", options_.tokens()},
            {"token_dim", width_},
            {"num_transformer_submodules", 1},
            {"num_attention_heads", kv_heads_},
            {"num_layers", static_cast<int64_t>(prefixes_.size())},
            {"encoder_hidden_size", width_},
            {"prefix_projection", false}};
  }

  std::vector<AdapterTensor> peft_tensors() const override {
    AdapterTensor tensor{.key = "prompt_embeddings", .columns = static_cast<int64_t>(names_.size()), .prefixed = false};
    for (const std::string& name : names_) tensor.parts.push_back({name});
    tensor.shape = {options_.tokens(), tensor.columns * width_};
    return {tensor};
  }

 private:
  PrefixTuning options_;
  int64_t kv_heads_ = 0, width_ = 0;
  std::vector<std::string> names_;  ///< keys of layer 0, values of layer 0, keys of layer 1, …
  std::vector<std::unique_ptr<Prefix>> prefixes_;
};

google::protobuf::Any prefix_tuning_of(const ConfigReader& config) {
  config.require("prefix_projection", false);
  PrefixTuning options;
  options.set_tokens(config.size("num_virtual_tokens", 20));
  return packed(options);
}

}  // namespace

void register_prefix_tuning(Registry& registry) {
  registry.add<Adapter, PrefixTuning>(
      [](const PrefixTuning& options, const Adapter::Context&) { return std::make_unique<Prefixes>(options); });
  registry.add_fact("PREFIX_TUNING", PeftType{prefix_tuning_of});
}

}  // namespace echelon
