#include "models/model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "comm/autograd.h"
#include "models/layers/cross_entropy.h"

namespace echelon {

namespace {

/// Rows whose label is not -100; undefined when that is all of them.
at::Tensor rows_with_targets(const at::Tensor& labels) {
  at::Tensor chosen = labels.ne(-100).nonzero().view({-1});
  return chosen.numel() == labels.numel() ? at::Tensor() : chosen;
}

}  // namespace

Model::Model(const Architecture& architecture, Zero& zero, ModelOptions options)
    : architecture_(architecture), zero_(zero), options_(options) {
  declare_embeddings();
  for (int64_t layer = 0; layer < architecture_.layers; ++layer) {
    std::string name = fmt::format("layers.{}", layer);
    blocks_.push_back(std::make_unique<Block>(new_unit(name), name, architecture_, layer));
  }
  declare_head();
  if (!options_.allocate) return;
  for (const auto& unit : weights_.units) unit->allocate();
}

Unit& Model::new_unit(const std::string& name) {
  return *weights_.units.emplace_back(std::make_unique<Unit>(name, zero_));
}

void Model::declare_embeddings() {
  const Architecture& a = architecture_;
  Unit& unit = new_unit("embeddings");
  embeddings_ = &unit;
  tokens_.emplace(unit, "embeddings.tokens", a.vocabulary, a.width, a.initializer_range, /*split=*/true, a.padding_id);
  if (a.positions == Positions::learned) {
    positions_.emplace(unit, "embeddings.positions", a.max_positions, a.width, a.initializer_range, /*split=*/false);
  }
  if (a.token_types > 0) {
    types_.emplace(unit, "embeddings.types", a.token_types, a.width, a.initializer_range, /*split=*/false);
  }
  if (a.embedding_norm) embedding_norm_.emplace(unit, "embeddings.norm", a);
}

void Model::declare_head() {
  const Architecture& a = architecture_;
  Unit& unit = new_unit("head");
  Linear::Options plain{.standard_deviation = a.initializer_range};
  if (a.final_norm) final_norm_.emplace(unit, "final_norm", a);
  if (a.pooler) pooler_.emplace(unit, "pooler", a.width, a.width, plain);
  if (a.head && a.head_transform) {
    transform_.emplace(unit, "head.transform", a.width, a.width, plain);
    transform_norm_.emplace(unit, "head.norm", a);
  }
  if (a.head) {
    head_weight_ = a.tied ? &tokens_->weight()
                          : &unit.add("head.weight", Layout::sharded({a.vocabulary, a.width}, 0, "tp"),
                                      {.standard_deviation = a.initializer_range});
    if (a.head_bias) head_bias_ = &unit.add("head.bias", Layout::sharded({a.vocabulary}, 0, "tp"), {});
  }
  if (unit.parameters().empty()) {
    weights_.units.pop_back();
  } else {
    head_ = &unit;
  }
}

Pass Model::pass(const Batch& batch, const Seed& seed, bool training) const {
  Pass pass{.mesh = zero_.mesh, .batch = batch.size(), .length = batch.length(), .samples = batch.samples,
            .training = training, .seed = seed.with("dropout")};
  if (batch.has("attention_mask")) pass.attention_mask = batch.at("attention_mask");
  return pass;
}

at::Tensor Model::embed(const Batch& batch, const at::Tensor& entered, const Pass& pass) {
  at::TensorOptions ids = batch.at("input_ids").options();
  at::Tensor rows = (*tokens_)(batch.at("input_ids").reshape({-1}), entered, pass);
  if (positions_) {
    at::Tensor positions = at::arange(pass.past, pass.past + pass.length, ids).repeat({pass.batch});
    rows = rows + (*positions_)(positions, entered, pass);
  }
  if (types_) {
    at::Tensor types = batch.has("token_type_ids") ? batch.at("token_type_ids").reshape({-1})
                                                   : at::zeros({pass.rows()}, ids);
    rows = rows + (*types_)(types, entered, pass);
  }
  if (embedding_norm_) rows = (*embedding_norm_)(rows);
  return pass.dropout(rows, architecture_.embedding_dropout.value_or(architecture_.dropout), "embeddings.dropout");
}

at::Tensor Model::through_layers(at::Tensor rows, const Pass& pass) {
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    Unit& unit = *weights_.units[layer + 1];
    const Block& block = *blocks_[layer];
    if (options_.recompute) {
      rows = unit.recompute([&block, pass](const at::Tensor& x) { return block(x, pass); }, rows);
    } else {
      rows = unit.leave(block(unit.enter(rows), pass));
    }
  }
  return rows;
}

at::Tensor Model::enter_head(const Batch& batch, const Pass& pass) {
  at::Tensor rows = embed(batch, embeddings_->enter({}), pass);
  if (!architecture_.tied || !architecture_.head) rows = embeddings_->leave(rows);
  rows = through_layers(rows, pass);
  if (head_) rows = head_->enter(rows);
  return final_norm_ ? (*final_norm_)(rows) : rows;
}

at::Tensor Model::leave_head(const at::Tensor& output) {
  at::Tensor left = head_ ? head_->leave(output) : output;
  return architecture_.tied && architecture_.head ? embeddings_->leave(left) : left;
}

at::Tensor Model::local_logits(const at::Tensor& rows, const Pass& pass) {
  at::Tensor x = rows;
  if (transform_) x = (*transform_norm_)(activate((*transform_)(x, pass), architecture_.activation));
  return linear(x, *head_weight_, head_bias_);
}

at::Tensor Model::whole_logits(const at::Tensor& local, const Pass& pass) {
  const Group& tp = pass.mesh.tp();
  if (tp.size() == 1) return local;
  int64_t part = (architecture_.vocabulary + tp.size() - 1) / tp.size();
  at::Tensor columns = at::constant_pad_nd(local.t(), {0, 0, 0, part - local.size(1)}).contiguous();
  return gather_rows(columns, architecture_.vocabulary, tp, "logits").t().contiguous();
}

at::Tensor Model::loss_sum(const Batch& batch, const Pass& pass) {
  at::Tensor rows = gather_rows(enter_head(batch, pass), pass.rows(), pass.mesh.tp(), "head");
  at::Tensor labels = batch.at("labels").reshape({-1});
  at::Tensor chosen = rows_with_targets(labels);
  if (chosen.defined()) {
    rows = rows.index_select(0, chosen);
    labels = labels.index_select(0, chosen);
  }
  at::Tensor loss = cross_entropy_sum(local_logits(rows, pass), labels, first_of_vocabulary(), pass.mesh.tp());
  return leave_head(loss);
}

Outputs Model::forward(const Batch& batch, const Pass& pass) {
  at::NoGradGuard no_gradients;
  at::Tensor rows = gather_rows(enter_head(batch, pass), pass.rows(), pass.mesh.tp(), "head");
  Outputs outputs{.last_hidden_state = rows.view({pass.batch, pass.length, -1})};
  if (head_weight_) {
    outputs.logits = whole_logits(local_logits(rows, pass), pass).view({pass.batch, pass.length, -1});
  }
  if (pooler_) outputs.pooled = at::tanh((*pooler_)(outputs.last_hidden_state.select(1, 0).contiguous(), pass));
  leave_head(rows);
  return outputs;
}

}  // namespace echelon
