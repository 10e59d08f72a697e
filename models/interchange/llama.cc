// Llama. Source: Touvron et al. 2023; names and keys as in transformers' configuration_llama and modeling_llama.
#include "models/interchange/family.h"

namespace echelon {

namespace {

struct Rope {
  double theta = 10000, linear_factor = 1;
  bool operator==(const Rope&) const = default;
};

/// A `rope_parameters` (transformers 5) or `rope_scaling` (4, `type` for `rope_type`) object.
Rope read_rope_object(const ConfigReader& rope, double theta) {
  std::string type_key = rope.has("rope_type") ? "rope_type" : "type";
  std::string type = rope.text(type_key, "default");
  if (type != "default" && type != "linear") {
    throw rope.mistake(type_key, "rope type is not implemented").got(type).expected("default or linear");
  }
  rope.require("partial_rotary_factor", 1.0);
  return {rope.number("rope_theta", 1e-6, 1e18, theta), type == "linear" ? rope.number("factor", 1e-6, 1e9, 1) : 1};
}

Rope read_rope(const ConfigReader& config) {
  config.require("partial_rotary_factor", 1.0);
  Rope old{config.number("rope_theta", 1e-6, 1e18, 10000)};
  bool has_old = config.has("rope_theta");
  if (config.object("rope_scaling")) {
    old = read_rope_object(config.within("rope_scaling"), old.theta);
    has_old = true;
  }
  if (!config.object("rope_parameters")) return old;
  Rope rope = read_rope_object(config.within("rope_parameters"), old.theta);
  if (has_old && rope != old) {
    config.warn("rope_parameters differs from rope_theta and rope_scaling; rope_parameters is used");
  }
  return rope;
}

void read(const ConfigReader& config, Architecture& a) {
  a.vocabulary = config.size("vocab_size", 32000);
  a.max_positions = config.size("max_position_embeddings", 2048);
  a.width = config.size("hidden_size", 4096);
  a.layers = config.layers("num_hidden_layers", 32);
  a.heads = config.size("num_attention_heads", 32);
  a.kv_heads = config.size("num_key_value_heads", a.heads);
  a.head_width = config.size("head_dim", std::max<int64_t>(1, a.width / a.heads));
  a.feed_forward = config.size("intermediate_size", 11008);
  a.activation = config.activation("hidden_act", "silu");
  a.gated = true;
  a.norm = Norm::rms;
  a.norm_epsilon = config.number("rms_norm_eps", 0, 1, 1e-6);
  a.attention_bias = a.attention_output_bias = config.flag("attention_bias", false);
  a.feed_forward_bias = config.flag("mlp_bias", false);
  a.attention_dropout = config.rate("attention_dropout", 0);
  a.initializer_range = config.number("initializer_range", 0, 1, 0.02);
  a.padding_id = config.padding_id(a.vocabulary, -1);
  a.positions = Positions::rotary;
  Rope rope = read_rope(config);
  a.rope_theta = rope.theta;
  a.rope_linear_factor = rope.linear_factor;
  check_shape(a, config, "hidden_size", "num_attention_heads", "num_key_value_heads");
}

Json write(const ModelShape& shape) {
  if (shape.dropout.value_or(0) > 0)
    throw Error::recipe("model.architecture.dropout", "llama has attention dropout only");
  int64_t width = shape.width.value_or(4096), heads = shape.heads.value_or(32);
  int64_t feed_forward = (8 * width / 3 + 31) / 32 * 32;
  return {{"vocab_size", shape.vocabulary.value_or(32000)},
          {"max_position_embeddings", shape.positions.value_or(2048)},
          {"hidden_size", width},
          {"num_hidden_layers", shape.layers.value_or(32)},
          {"num_attention_heads", heads},
          {"num_key_value_heads", shape.kv_heads.value_or(heads)},
          {"head_dim", shape.head_width.value_or(width / std::max<int64_t>(1, heads))},
          {"intermediate_size", shape.feed_forward.value_or(feed_forward)},
          {"hidden_act", "silu"},
          {"rms_norm_eps", shape.norm_epsilon.value_or(1e-6)},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"attention_dropout", shape.attention_dropout.value_or(0)},
          {"initializer_range", shape.initializer_range.value_or(0.02)},
          {"rope_parameters", {{"rope_theta", shape.rope_theta.value_or(10000)}, {"rope_type", "default"}}},
          {"pretraining_tp", 1},
          {"use_cache", true}};
}

void finish(Json& config, const Architecture& a) {
  bool linear = a.rope_linear_factor != 1;
  Json rope = {{"rope_theta", a.rope_theta}, {"rope_type", linear ? "linear" : "default"}};
  if (linear) rope["factor"] = a.rope_linear_factor;
  config["rope_parameters"] = rope;
  config["rope_theta"] = a.rope_theta;
  rope.erase("rope_theta");
  config["rope_scaling"] = linear ? rope : Json(nullptr);
}

bool is_ignored(std::string_view name) { return name.ends_with(".inv_freq"); }

}  // namespace

const Family& llama_family() {
  static const Family family{.model_type = "llama",
                             .base_prefix = "model.",
                             .head_class = "LlamaForCausalLM",
                             .bare_class = "LlamaModel",
                             .names = {{"embeddings.tokens", "model.embed_tokens"},
                                       {"layers.L.attention_norm", "model.layers.L.input_layernorm"},
                                       {"layers.L.attention.query", "model.layers.L.self_attn.q_proj"},
                                       {"layers.L.attention.key", "model.layers.L.self_attn.k_proj"},
                                       {"layers.L.attention.value", "model.layers.L.self_attn.v_proj"},
                                       {"layers.L.attention.output", "model.layers.L.self_attn.o_proj"},
                                       {"layers.L.feed_forward_norm", "model.layers.L.post_attention_layernorm"},
                                       {"layers.L.feed_forward.gate", "model.layers.L.mlp.gate_proj"},
                                       {"layers.L.feed_forward.up", "model.layers.L.mlp.up_proj"},
                                       {"layers.L.feed_forward.down", "model.layers.L.mlp.down_proj"},
                                       {"final_norm", "model.norm"},
                                       {"head", "lm_head"}},
                             .float_keys = {"rms_norm_eps", "initializer_range", "attention_dropout", "rope_theta"},
                             .is_ignored = is_ignored,
                             .tied_by_default = false,
                             .lora_targets = {"q_proj", "v_proj"},
                             .ia3_targets = {"k_proj", "v_proj", "down_proj"},
                             .ia3_feed_forward = {"down_proj"},
                             .read = read,
                             .write = write,
                             .finish = finish};
  return family;
}

}  // namespace echelon
