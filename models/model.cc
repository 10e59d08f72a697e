#include "models/model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include "comm/autograd.h"
#include "models/layers/activation.h"
#include "models/layers/cross_entropy.h"
#include "models/layers/discarded.h"

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
}

void Model::allocate() {
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
  if (a.head && a.tied) {
    head_weight_ = &tokens_->weight();
    if (a.head_bias) head_bias_ = &unit.add("head.bias", Layout::sharded({a.vocabulary}, 0, "tp"), {});
  } else if (a.head) {
    own_head_.emplace(
        unit, "head", a.width, a.vocabulary,
        Linear::Options{.bias = a.head_bias, .split = Split::column, .standard_deviation = a.initializer_range});
    head_weight_ = &own_head_->weight();
    head_bias_ = own_head_->bias();
  }
  if (unit.parameters().empty()) {
    weights_.units.pop_back();
  } else {
    head_ = &unit;
  }
}

std::vector<Linear*> Model::linears() {
  std::vector<Linear*> all;
  for (const auto& block : blocks_) {
    for (Linear* linear : block->attention().linears()) all.push_back(linear);
    for (Linear* linear : block->feed_forward().linears()) all.push_back(linear);
  }
  if (transform_) all.push_back(&*transform_);
  if (pooler_) all.push_back(&*pooler_);
  if (own_head_) all.push_back(&*own_head_);
  return all;
}

void Model::freeze(const std::function<bool(const Parameter&)>& learns) {
  for (const auto& unit : weights_.units) {
    for (const auto& parameter : unit->parameters()) {
      if (!learns(*parameter)) unit->freeze(*parameter);
    }
  }
}

int64_t Model::extra_token_count() const {
  int64_t count = 0;
  for (const ExtraTokens* extra : extra_tokens_) count += extra->tokens();
  return count;
}

Pass Model::pass(const Batch& batch, const Seed& seed, bool training, KeyValueCache* cache, int64_t past) const {
  int64_t extra = extra_token_count(), now = past == 0 ? extra : 0;
  Pass pass{.mesh = zero_.mesh,
            .batch = batch.size(),
            .length = now + batch.length(),
            .samples = batch.samples,
            .training = training,
            .seed = seed.with("dropout"),
            .cache = cache,
            .past = past == 0 ? 0 : extra + past,
            .extra_tokens = now,
            .extra_keys = extra_keys_};
  if (batch.has("attention_mask")) pass.attention_mask = with_extra_tokens(batch, now).at("attention_mask");
  return pass;
}

Batch Model::with_extra_tokens(const Batch& batch, int64_t count) {
  if (count == 0) return batch;
  Batch longer = batch;
  for (auto& [name, tensor] : longer.tensors) {
    double fill = name == "labels" ? -100 : name == "attention_mask" ? 1 : 0;
    tensor = at::constant_pad_nd(tensor, {count, 0}, fill);
  }
  return longer;
}

at::Tensor Model::put_extra_tokens(const at::Tensor& rows, const Pass& pass) const {
  if (pass.extra_tokens == 0) return rows;
  std::vector<at::Tensor> extras;
  for (const ExtraTokens* extra : extra_tokens_) extras.push_back(extra->embeddings());
  at::Tensor table = at::cat(extras, 0);
  at::TensorOptions longs = at::TensorOptions().dtype(at::kLong).device(rows.device());
  at::Tensor place = at::arange(pass.first_row(), pass.first_row() + rows.size(0), longs).remainder(pass.length);
  at::Tensor is_extra = place.lt(table.size(0)).unsqueeze(1);
  return at::where(is_extra, table.index_select(0, place.clamp_max(table.size(0) - 1)), rows);
}

at::Tensor Model::without_extra_tokens(const at::Tensor& rows, const Pass& pass) const {
  at::Tensor all = rows.view({pass.batch, pass.length, -1});
  return all.narrow(1, pass.extra_tokens, pass.length - pass.extra_tokens);
}

at::Tensor Model::positions_of(const Pass& pass, const at::TensorOptions& ids) const {
  at::Tensor columns = at::arange(pass.first_column(), pass.first_column() + pass.length, ids);
  if (!pass.cache || pass.cache->begins.empty()) return columns.repeat({pass.batch});
  return (columns - at::tensor(pass.cache->begins, ids).unsqueeze(1)).reshape({-1});
}

at::Tensor Model::embed(const Batch& batch, const at::Tensor& entered, const Pass& pass) {
  at::TensorOptions ids = batch.at("input_ids").options();
  at::Tensor rows = put_extra_tokens((*tokens_)(batch.at("input_ids").reshape({-1}), entered, pass), pass);
  if (positions_) {
    rows = rows + (*positions_)(positions_of(pass, ids), entered, pass);
  }
  if (types_) {
    at::Tensor types =
        batch.has("token_type_ids") ? batch.at("token_type_ids").reshape({-1}) : at::zeros({pass.rows()}, ids);
    rows = rows + (*types_)(types, entered, pass);
  }
  if (embedding_norm_) rows = (*embedding_norm_)(rows);
  return pass.dropout(rows, architecture_.embedding_dropout.value_or(architecture_.dropout), "embeddings.dropout");
}

at::Tensor Model::through_layer(const Block& block, const at::Tensor& rows, const Pass& pass) const {
  if (options_.recomputed != Recomputed::cheap || !at::GradMode::is_enabled()) return block(rows, pass);
  Discarded discarded;
  Pass own = pass;
  own.discarded = &discarded;
  return std::move(discarded).until_backward(block(rows, own));
}

at::Tensor Model::through_layers(at::Tensor rows, const Pass& pass) {
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    Unit& unit = *weights_.units[layer + 1];
    const Block& block = *blocks_[layer];
    if (options_.recomputed == Recomputed::all) {
      rows = unit.recompute([&block, pass](const at::Tensor& x) { return block(x, pass); }, rows);
    } else {
      rows = unit.leave(through_layer(block, unit.enter(rows), pass));
    }
  }
  return rows;
}

at::Tensor Model::enter_head(const Batch& batch, const Pass& pass) {
  at::Tensor rows = embed(batch, embeddings_->enter({}), pass);
  if (!head_keeps_embeddings()) rows = embeddings_->leave(rows);
  rows = through_layers(rows, pass);
  if (head_) rows = head_->enter(rows);
  if (head_is_tied() && !head_keeps_embeddings()) rows = embeddings_->enter(rows);
  return final_norm_ ? (*final_norm_)(rows) : rows;
}

at::Tensor Model::leave_head(const at::Tensor& output) {
  at::Tensor left = head_ ? head_->leave(output) : output;
  return head_is_tied() ? embeddings_->leave(left) : left;
}

at::Tensor Model::head_input(const at::Tensor& rows, const Pass& pass) const {
  return transform_ ? (*transform_norm_)(activate((*transform_)(rows, pass), architecture_.activation)) : rows;
}

at::Tensor Model::whole_logits(const at::Tensor& local, const Pass& pass) {
  const Group& tp = pass.mesh.tp();
  if (tp.size() == 1) return local;
  int64_t part = (architecture_.vocabulary + tp.size() - 1) / tp.size();
  at::Tensor columns = at::constant_pad_nd(local.t(), {0, 0, 0, part - local.size(1)}).contiguous();
  return gather_rows(columns, architecture_.vocabulary, tp, "logits").t().contiguous();
}

at::Tensor Model::head_logits(const at::Tensor& input, const Pass& pass) const {
  return own_head_ ? (*own_head_)(input, pass) : linear(input, *head_weight_, head_bias_);
}

at::Tensor Model::head_loss(const at::Tensor& input, const at::Tensor& labels, const Pass& pass) const {
  const Group& tp = pass.mesh.tp();
  // What an adapter adds to the logits needs them whole; else they are never more than a chunk.
  if (own_head_ && own_head_->is_adapted())
    return cross_entropy_sum(head_logits(input, pass), labels, first_of_vocabulary(), tp);
  return head_cross_entropy_sum(input, *head_weight_, head_bias_, labels, first_of_vocabulary(), tp);
}

at::Tensor Model::loss_sum(const Batch& given, const Pass& pass) {
  Batch batch = with_extra_tokens(given, pass.extra_tokens);
  at::Tensor rows = gather_rows(enter_head(batch, pass), pass.rows(), pass.mesh.tp(), "head");
  at::Tensor labels = batch.at("labels").reshape({-1});
  at::Tensor chosen = rows_with_targets(labels);
  if (chosen.defined()) {
    rows = rows.index_select(0, chosen);
    labels = labels.index_select(0, chosen);
  }
  return leave_head(head_loss(head_input(rows, pass), labels, pass));
}

Outputs Model::forward(const Batch& batch, const Pass& pass) {
  at::NoGradGuard no_gradients;
  at::Tensor rows =
      gather_rows(enter_head(with_extra_tokens(batch, pass.extra_tokens), pass), pass.rows(), pass.mesh.tp(), "head");
  Outputs outputs{.last_hidden_state = without_extra_tokens(rows, pass)};
  if (head_weight_)
    outputs.logits = without_extra_tokens(whole_logits(head_logits(head_input(rows, pass), pass), pass), pass);
  if (pooler_) outputs.pooled = at::tanh((*pooler_)(outputs.last_hidden_state.select(1, 0).contiguous(), pass));
  leave_head(rows);
  return outputs;
}

}  // namespace echelon
