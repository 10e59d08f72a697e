// Next-token prediction. Source: Radford et al. 2019.
#include <ATen/ATen.h>

#include "cluster/base/registry.h"
#include "models/objective.h"
#include "models/objectives/causal_lm.pb.h"

namespace echelon {

namespace {

class NextToken : public Objective {
 public:
  int64_t lookahead() const override { return 1; }
  bool causal() const override { return true; }

  Batch prepare(const Examples& examples, const Seed&) const override {
    int64_t length = examples.tokens.size(1) - 1;
    Batch batch{.samples = examples.samples};
    batch.tensors["input_ids"] = examples.tokens.narrow(1, 0, length).clone(at::MemoryFormat::Contiguous);
    batch.tensors["labels"] = examples.tokens.narrow(1, 1, length).clone(at::MemoryFormat::Contiguous);
    batch.targets = batch.at("labels").numel();
    return batch;
  }

  Terms loss(Model& model, const Batch& batch, const Pass& pass) override {
    return {{{"causal_lm", {model.loss_sum(batch, pass), batch.targets}}}};
  }
};

}  // namespace

void register_causal_lm(Registry& registry) {
  registry.add<Objective, CausalLm>(
      [](const CausalLm&, const Objective::Context&) { return std::make_unique<NextToken>(); });
}

}  // namespace echelon
