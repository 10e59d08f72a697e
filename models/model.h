// The transformer that every family is a shape of.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/architecture.h"
#include "models/batch.h"
#include "models/layers/block.h"
#include "models/layers/embedding.h"
#include "models/layers/pass.h"
#include "sharding/unit.h"

namespace echelon {

/// Outputs of a forward pass; what a model has no head for is undefined.
struct Outputs {
  at::Tensor last_hidden_state;  ///< [B, T, D], behind the final norm
  at::Tensor logits;             ///< [B, T, V]
  at::Tensor pooled;             ///< [B, D]
};

/// What of a layer's activations backward computes again instead of finding it.
enum class Recomputed {
  nothing,
  cheap,  ///< norms and activation functions
  all,    ///< the layer runs again
};

struct ModelOptions {
  Recomputed recomputed = Recomputed::nothing;
};

/// A sharded transformer. Its Units in order: `embeddings`, `layers.0` … , `head`. Names of tensors:
///
///     embeddings.{tokens,positions,types}.weight   embeddings.norm.{weight,bias}
///     layers.L.attention_norm.{weight,bias}        layers.L.attention.{query,key,value,output}.{weight,bias}
///     layers.L.feed_forward_norm.{weight,bias}     layers.L.feed_forward.{gate,up,down}.{weight,bias}
///     final_norm.{weight,bias}   pooler.{weight,bias}   head.transform.{weight,bias}  head.norm.{weight,bias}
///     head.weight (when not tied)   head.bias
///
/// Linear weights are [out, in]. A tied head uses embeddings.tokens.weight; where that learns, its Unit stays gathered
/// to the end, so that its gradient is reduced once.
class Model {
 public:
  /// Declares all tensors.
  Model(const Architecture& architecture, Zero& zero, ModelOptions options = {});
  /// Once adapters have added theirs and what shall not learn is frozen. Values are undefined until weights().load().
  /// Collective.
  void allocate();

  const Architecture& architecture() const { return architecture_; }
  Weights& weights() { return weights_; }
  const Weights& weights() const { return weights_; }

  /// Sum of cross-entropies of `batch.labels`; a scalar in float32 (float64). With gradients on, its backward leaves
  /// every gradient with its owner. Collective.
  at::Tensor loss_sum(const Batch& batch, const Pass& pass);
  /// Outputs for reading, without gradients, whole on every rank. Collective.
  Outputs forward(const Batch& batch, const Pass& pass);

  /// For one pass over `batch`, which loss_sum() or forward() is given with it; with a cache, behind its `past` tokens.
  Pass pass(const Batch& batch, const Seed& seed, bool training, KeyValueCache* cache = nullptr,
            int64_t past = 0) const;

  // Where adapters attach; what they attach must outlive the model, and their tensors are added before allocate().
  std::vector<Linear*> linears();
  Embedding& token_embedding() { return *tokens_; }
  const Embedding& token_embedding() const { return *tokens_; }
  std::vector<std::unique_ptr<Block>>& blocks() { return blocks_; }
  void attach(const ExtraTokens& tokens) { extra_tokens_.push_back(&tokens); }
  /// Keys and values that adapters put in front in every layer.
  void add_extra_keys(int64_t tokens) { extra_keys_ += tokens; }
  /// Positions that adapters take from a sequence.
  int64_t extra_positions() const { return extra_keys_ + extra_token_count(); }
  /// Freezes every tensor declared so far that `learns` does not pick.
  void freeze(const std::function<bool(const Parameter&)>& learns);

 private:
  /// Embeddings to final norm: this rank's rows. Enters the Units `embeddings` (left here unless the head is tied to
  /// it) and `head` (left by leave_head).
  at::Tensor enter_head(const Batch& batch, const Pass& pass);
  at::Tensor leave_head(const at::Tensor& output);
  /// Positions [B * T] of the tokens in their sequences.
  at::Tensor positions_of(const Pass& pass, const at::TensorOptions& ids) const;
  at::Tensor embed(const Batch& batch, const at::Tensor& entered, const Pass& pass);
  int64_t extra_token_count() const;
  /// Room for extra tokens in front of every sequence: ids 0, labels -100, mask 1.
  static Batch with_extra_tokens(const Batch& batch, int64_t count);
  at::Tensor put_extra_tokens(const at::Tensor& rows, const Pass& pass) const;
  /// [B * (extra + T), …] without the extra rows.
  at::Tensor without_extra_tokens(const at::Tensor& rows, const Pass& pass) const;
  at::Tensor through_layer(const Block& block, const at::Tensor& rows, const Pass& pass) const;
  at::Tensor through_layers(at::Tensor rows, const Pass& pass);
  /// What the head's matrix is applied to, of whole rows [N, D].
  at::Tensor head_input(const at::Tensor& rows, const Pass& pass) const;
  /// All logits [N, V] from this rank's [N, V / tp].
  at::Tensor whole_logits(const at::Tensor& local, const Pass& pass);
  bool head_is_tied() const { return architecture_.tied && architecture_.head; }
  bool head_keeps_embeddings() const { return head_is_tied() && !embeddings_->trained().empty(); }
  /// This rank's logits [N, V / tp].
  at::Tensor head_logits(const at::Tensor& input, const Pass& pass) const;
  at::Tensor head_loss(const at::Tensor& input, const at::Tensor& labels, const Pass& pass) const;
  int64_t first_of_vocabulary() const { return head_weight_->local().offsets[0]; }
  void declare_embeddings();
  void declare_head();
  Unit& new_unit(const std::string& name);

  Architecture architecture_;
  Zero& zero_;
  ModelOptions options_;
  Weights weights_;
  std::optional<Embedding> tokens_, positions_, types_;
  std::optional<NormLayer> embedding_norm_, final_norm_, transform_norm_;
  std::vector<std::unique_ptr<Block>> blocks_;
  std::vector<const ExtraTokens*> extra_tokens_;
  int64_t extra_keys_ = 0;
  std::optional<Linear> transform_, pooler_, own_head_;  // the last where the head's matrix is not the embedding's
  Unit* embeddings_ = nullptr;
  Unit* head_ = nullptr;  // absent when it has no tensor of its own
  const Parameter* head_weight_ = nullptr;
  const Parameter* head_bias_ = nullptr;
};

}  // namespace echelon
