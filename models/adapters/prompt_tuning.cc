// Learnt vectors in front of the embedded tokens. Source: Lester et al. 2021.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/registry.h"
#include "models/adapter.h"
#include "models/adapters/prompt_tuning.pb.h"

namespace echelon {

namespace {

class Prompt : public Adapter, public ExtraTokens {
 public:
  explicit Prompt(const PromptTuning& options) : options_(options) {
    if (options_.tokens() < 1) throw Error::recipe("adapter.PromptTuning.tokens", "must be at least 1");
  }

  void attach(Model& model) override {
    const Architecture& a = model.architecture();
    for (int64_t id : options_.start_ids()) {
      if (id < 0 || id >= a.vocabulary) {
        throw Error::recipe("adapter.PromptTuning.start_ids", fmt::format("{} is no token", id))
            .expected(fmt::format("0 to {}", a.vocabulary - 1));
      }
    }
    table_ = model.token_embedding().weight().name();
    prompt_ = &model.token_embedding().unit().add(fmt::format("adapters.{}.prompt", options_.name()),
                                                  Layout::replicated({options_.tokens(), a.width}),
                                                  {.standard_deviation = options_.initializer_range()});
    model.attach(static_cast<const ExtraTokens&>(*this));
  }

  WholeTensors derive_values(Model& model) override {
    if (options_.start_ids_size() == 0) return {};
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < options_.tokens(); ++i)
      ids.push_back(options_.start_ids(static_cast<int>(i % options_.start_ids_size())));
    WholeTensors values;
    auto masters_of_embeddings = [&](FlatShard& shard) {
      return shard.name().starts_with("embeddings") ? shard.master() : at::Tensor();
    };
    model.weights().visit_whole(masters_of_embeddings, [&](const Parameter& parameter, const at::Tensor& whole) {
      if (parameter.name() == table_) values[prompt_->name()] = whole.index_select(0, at::tensor(ids, at::kLong));
    });
    return values;
  }

  int64_t tokens() const override { return options_.tokens(); }
  at::Tensor embeddings() const override { return prompt_->use(); }

  Json peft_config() const override {
    int64_t width = prompt_->layout().sizes[1];
    return {{"peft_type", "PROMPT_TUNING"},
            {"num_virtual_tokens", options_.tokens()},
            {"token_dim", width},
            {"num_transformer_submodules", 1},
            {"num_attention_heads", 1},
            {"num_layers", 1},
            {"prompt_tuning_init", "RANDOM"}};
  }

  std::vector<AdapterTensor> peft_tensors() const override {
    return {{.key = "prompt_embeddings",
             .parts = {{prompt_->name()}},
             .shape = prompt_->layout().sizes,
             .prefixed = false}};
  }

 private:
  PromptTuning options_;
  std::string table_;
  const Parameter* prompt_ = nullptr;
};

google::protobuf::Any prompt_tuning_of(const ConfigReader& config) {
  PromptTuning options;
  options.set_tokens(config.size("num_virtual_tokens", 20));
  return packed(options);
}

}  // namespace

void register_prompt_tuning(Registry& registry) {
  registry.add<Adapter, PromptTuning>(
      [](const PromptTuning& options, const Adapter::Context&) { return std::make_unique<Prompt>(options); });
  registry.add_fact("PROMPT_TUNING", PeftType{prompt_tuning_of});
  // P-tuning is stored without its network: a prompt like any other.
  registry.add_fact("P_TUNING", PeftType{prompt_tuning_of});
}

}  // namespace echelon
