// Vectors in front of the embedded tokens that come out of a small network. Source: Liu et al. 2021.
#include <cmath>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/registry.h"
#include "models/adapter.h"
#include "models/adapters/p_tuning.pb.h"

namespace echelon {

namespace {

constexpr int kLayers = 3;

class EncodedPrompt : public Adapter, public ExtraTokens {
 public:
  explicit EncodedPrompt(const PTuning& options) : options_(options) {
    if (options_.tokens() < 1) throw Error::recipe("adapter.PTuning.tokens", "must be at least 1");
    if (options_.has_hidden() && options_.hidden() < 1)
      throw Error::recipe("adapter.PTuning.hidden", "must be at least 1");
  }

  void attach(Model& model) override {
    width_ = model.architecture().width;
    hidden_ = options_.has_hidden() ? options_.hidden() : width_;
    Unit& unit = model.token_embedding().unit();
    table_ =
        &unit.add(prefix() + "embedding", Layout::replicated({options_.tokens(), width_}), {.standard_deviation = 1});
    for (int i = 0; i < kLayers; ++i) {
      int64_t inputs = i == 0 ? width_ : hidden_, outputs = i + 1 == kLayers ? width_ : hidden_;
      Init start{.bound = 1 / std::sqrt(static_cast<double>(inputs))};
      weights_[i] = &unit.add(fmt::format("{}{}.weight", prefix(), i), Layout::replicated({outputs, inputs}), start);
      biases_[i] = &unit.add(fmt::format("{}{}.bias", prefix(), i), Layout::replicated({outputs}), start);
    }
    model.attach(static_cast<const ExtraTokens&>(*this));
  }

  int64_t tokens() const override { return options_.tokens(); }
  at::Tensor embeddings() const override {
    return encoded([](const Parameter* parameter) { return parameter->use(); });
  }

  Json peft_config() const override {
    return {{"peft_type", "P_TUNING"},
            {"num_virtual_tokens", options_.tokens()},
            {"token_dim", width_},
            {"num_transformer_submodules", 1},
            {"num_attention_heads", 1},
            {"num_layers", 1},
            {"encoder_reparameterization_type", "MLP"},
            {"encoder_hidden_size", hidden_},
            {"encoder_num_layers", 2},
            {"encoder_dropout", 0.0}};
  }

  void complete(WholeTensors& values) const override {
    values[prefix() + "prompt"] = encoded([&](const Parameter* parameter) { return values.at(parameter->name()); });
  }

  std::vector<AdapterTensor> peft_tensors() const override {
    return {{.key = "prompt_embeddings",
             .parts = {{prefix() + "prompt"}},
             .shape = {options_.tokens(), width_},
             .prefixed = false}};
  }

 private:
  std::string prefix() const { return fmt::format("adapters.{}.prompt_encoder.", options_.name()); }

  template <class Value>
  at::Tensor encoded(const Value& value) const {
    at::Tensor rows = value(table_);
    for (int i = 0; i < kLayers; ++i) {
      rows = at::addmm(value(biases_[i]), rows, value(weights_[i]).t());
      if (i + 1 < kLayers) rows = at::relu(rows);
    }
    return rows;
  }

  PTuning options_;
  int64_t width_ = 0, hidden_ = 0;
  const Parameter *table_ = nullptr, *weights_[kLayers] = {}, *biases_[kLayers] = {};
};

}  // namespace

void register_p_tuning(Registry& registry) {
  registry.add<Adapter, PTuning>(
      [](const PTuning& options, const Adapter::Context&) { return std::make_unique<EncodedPrompt>(options); });
}

}  // namespace echelon
