// GPT-2. Source: Radford et al. 2019; names and keys as in transformers' configuration_gpt2 and modeling_gpt2.
#include "models/interchange/family.h"

namespace echelon {

namespace {

void read(const ConfigReader& config, Architecture& a) {
  a.vocabulary = config.size("vocab_size", 50257);
  a.max_positions = config.size("n_positions", 1024);
  a.width = config.size("n_embd", 768);
  a.layers = config.layers("n_layer", 12);
  a.heads = a.kv_heads = config.size("n_head", 12);
  a.head_width = a.width / a.heads;
  a.feed_forward = config.size("n_inner", 4 * a.width);
  a.activation = config.activation("activation_function", "gelu_new");
  a.dropout = config.rate("resid_pdrop", 0.1);
  a.embedding_dropout = config.rate("embd_pdrop", 0.1);
  a.attention_dropout = config.rate("attn_pdrop", 0.1);
  a.norm_epsilon = config.number("layer_norm_epsilon", 0, 1, 1e-5);
  a.initializer_range = config.number("initializer_range", 0, 1, 0.02);
  a.scale_residual_init = true;
  config.require("scale_attn_weights", true);
  config.refuse("scale_attn_by_inverse_layer_idx");
  config.refuse("add_cross_attention");
  check_shape(a, config, "n_embd", "n_head", "n_head");
}

Json write(const ModelShape& shape) {
  double dropout = shape.dropout.value_or(0);
  int64_t width = shape.width.value_or(768);
  return {{"vocab_size", shape.vocabulary.value_or(50257)},
          {"n_positions", shape.positions.value_or(1024)},
          {"n_embd", width},
          {"n_layer", shape.layers.value_or(12)},
          {"n_head", shape.heads.value_or(12)},
          {"n_inner", or_null(shape.feed_forward)},
          {"activation_function", "gelu_new"},
          {"resid_pdrop", dropout},
          {"embd_pdrop", dropout},
          {"attn_pdrop", shape.attention_dropout.value_or(0)},
          {"layer_norm_epsilon", shape.norm_epsilon.value_or(1e-5)},
          {"initializer_range", shape.initializer_range.value_or(0.02)},
          {"scale_attn_weights", true},
          {"scale_attn_by_inverse_layer_idx", false},
          {"reorder_and_upcast_attn", false},
          {"use_cache", true}};
}

bool is_ignored(std::string_view name) { return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"); }

}  // namespace

const Family& gpt2_family() {
  static const Family family{
      .model_type = "gpt2",
      .base_prefix = "transformer.",
      .head_class = "GPT2LMHeadModel",
      .bare_class = "GPT2Model",
      .names = {{"embeddings.tokens", "transformer.wte"},
                {"embeddings.positions", "transformer.wpe"},
                {"layers.L.attention_norm", "transformer.h.L.ln_1"},
                {.ours = "layers.L.attention.query",
                 .theirs = "transformer.h.L.attn.c_attn",
                 .transposed = true,
                 .part = 0,
                 .parts = 3},
                {.ours = "layers.L.attention.key",
                 .theirs = "transformer.h.L.attn.c_attn",
                 .transposed = true,
                 .part = 1,
                 .parts = 3},
                {.ours = "layers.L.attention.value",
                 .theirs = "transformer.h.L.attn.c_attn",
                 .transposed = true,
                 .part = 2,
                 .parts = 3},
                {.ours = "layers.L.attention.output", .theirs = "transformer.h.L.attn.c_proj", .transposed = true},
                {"layers.L.feed_forward_norm", "transformer.h.L.ln_2"},
                {.ours = "layers.L.feed_forward.up", .theirs = "transformer.h.L.mlp.c_fc", .transposed = true},
                {.ours = "layers.L.feed_forward.down", .theirs = "transformer.h.L.mlp.c_proj", .transposed = true},
                {"final_norm", "transformer.ln_f"},
                {"head", "lm_head"}},
      .float_keys = {"layer_norm_epsilon", "initializer_range", "resid_pdrop", "embd_pdrop", "attn_pdrop",
                     "summary_first_dropout"},
      .is_ignored = is_ignored,
      .tied_by_default = true,
      .lora_targets = {"c_attn"},
      .ia3_targets = {"c_attn", "mlp.c_proj"},
      .ia3_feed_forward = {"mlp.c_proj"},
      .read = read,
      .write = write,
      .finish = [](Json&, const Architecture&) {}};
  return family;
}

}  // namespace echelon
