// Masked-token prediction with dynamic masking. Sources: Devlin et al. 2019, Liu et al. 2019.
#include <algorithm>

#include <ATen/ATen.h>

#include "cluster/base/registry.h"
#include "models/objective.h"
#include "models/objectives/masked_lm.pb.h"

namespace echelon {

namespace {

class MaskedToken : public Objective {
 public:
  MaskedToken(const MaskedLm& options, const Vocabulary& vocabulary)
      : options_(options),
        mask_(options.has_mask_token_id() ? options.mask_token_id() : vocabulary.mask),
        vocabulary_(options.has_vocabulary() ? options.vocabulary() : vocabulary.size),
        special_(vocabulary.special) {
    if (options.special_token_id_size() > 0)
      special_.assign(options.special_token_id().begin(), options.special_token_id().end());
    if (mask_ < 0 || vocabulary_ <= mask_) {
      throw Error::recipe("objective", "MaskedLm needs the id of a mask token inside the vocabulary")
          .remedy("set mask_token_id, or prepare the data with a tokenizer that has one");
    }
  }

  int64_t lookahead() const override { return 0; }
  bool causal() const override { return false; }

  Batch prepare(const Examples& examples, const Seed& seed) const override {
    Batch batch{.samples = examples.samples};
    at::Tensor inputs = examples.tokens.clone(), labels = at::full_like(inputs, -100);
    for (int64_t b = 0; b < inputs.size(0); ++b) {
      batch.targets += mask(seed.with("mask").with(examples.samples[b]), inputs[b], labels[b]);
    }
    batch.tensors["input_ids"] = inputs;
    batch.tensors["labels"] = labels;
    return batch;
  }

  Terms loss(Model& model, const Batch& batch, const Pass& pass) override {
    return {{{"masked_lm", {model.loss_sum(batch, pass), batch.targets}}}};
  }

 private:
  /// Masks one sequence [T] in place; returns its number of targets.
  int64_t mask(const Seed& seed, const at::Tensor& inputs, const at::Tensor& labels) const {
    Seed choice = seed.with("choice"), kind = seed.with("kind"), token = seed.with("token");
    auto input = inputs.accessor<int64_t, 1>();
    auto label = labels.accessor<int64_t, 1>();
    int64_t targets = 0;
    for (int64_t t = 0; t < inputs.size(0); ++t) {
      if (choice.uniform(t) >= options_.mask_rate() || is_special(input[t])) continue;
      label[t] = input[t];
      ++targets;
      double draw = kind.uniform(t);
      if (draw < options_.mask_token_rate()) {
        input[t] = mask_;
      } else if (draw < options_.mask_token_rate() + options_.random_token_rate()) {
        input[t] = random_token(token, t);
      }
    }
    return targets;
  }

  int64_t random_token(const Seed& seed, int64_t position) const {
    // Redrawn while it is a special token; a few tries always suffice, and the last one is taken as it is.
    int64_t id = 0;
    for (int64_t attempt = 0; attempt < 16; ++attempt) {
      id = seed.with(position).integer(attempt, vocabulary_);
      if (!is_special(id)) break;
    }
    return id;
  }

  bool is_special(int64_t id) const { return std::find(special_.begin(), special_.end(), id) != special_.end(); }

  MaskedLm options_;
  int64_t mask_, vocabulary_;
  std::vector<int64_t> special_;
};

}  // namespace

void register_masked_lm(Registry& registry) {
  registry.add<Objective, MaskedLm>([](const MaskedLm& options, const Objective::Context& context) {
    return std::make_unique<MaskedToken>(options, context.vocabulary);
  });
}

}  // namespace echelon
