// The shape of a transformer: everything in which the families differ.
#pragma once

#include <cstdint>
#include <optional>

#include "models/activation.h"

namespace echelon {

enum class Norm { layer, rms };
enum class NormPlace { before, after };      ///< of attention and feed-forward: pre-norm or post-norm
enum class Positions { learned, rotary };

/// A declarative transformer; a family (models/interchange) fills it in from its config.json.
struct Architecture {
  int64_t vocabulary = 0, width = 0, layers = 0, heads = 0, kv_heads = 0, head_width = 0, feed_forward = 0;
  int64_t max_positions = 0;
  int64_t token_types = 0;            ///< rows of the token type embedding; 0: none
  int64_t padding_id = -1;            ///< looking up this token gives its row no gradient; -1: none
  bool causal = true;

  Norm norm = Norm::layer;
  NormPlace norm_place = NormPlace::before;
  double norm_epsilon = 1e-5;
  bool embedding_norm = false;        ///< a norm on the sum of embeddings
  bool final_norm = true;             ///< a norm after the last layer

  Positions positions = Positions::learned;
  double rope_theta = 10000;
  double rope_linear_factor = 1;      ///< positions are divided by it

  Activation activation = Activation::gelu;
  bool gated = false;                 ///< down(activation(gate(x)) * up(x))
  bool attention_bias = true, attention_output_bias = true, feed_forward_bias = true;

  bool tied = true;                   ///< the head's matrix is the token embedding
  bool head = true;                   ///< false: a bare model, hidden states only
  bool head_transform = false;        ///< dense, activation and norm before the head (BERT)
  bool head_bias = false;
  bool pooler = false;                ///< tanh(dense) of the first token

  double dropout = 0, attention_dropout = 0;
  std::optional<double> embedding_dropout;   ///< absent: dropout
  double initializer_range = 0.02;
  bool scale_residual_init = false;   ///< output projections start at range / sqrt(2 layers) (GPT-2)
};

}  // namespace echelon
