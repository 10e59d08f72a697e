// config.json of a model folder.
#include "models/interchange/config_writer.h"
#include "models/interchange/interchange.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {

namespace {

Json small(const std::string& family) {
  return config_of_shape(family,
                         {.layers = 2, .width = 16, .heads = 4, .feed_forward = 20, .vocabulary = 23, .positions = 9});
}

std::string good(const std::string& family) { return dump_json(small(family)); }

struct Change {
  const char* family;
  const char* key;
  Json value;
  const char* words;
};

std::string changed(const Change& change) {
  Json config = small(change.family);
  config[change.key] = change.value;
  return dump_json(config);
}

std::vector<Change> changes() {
  const Json big = int64_t{1} << 31, negative = -1, floating = 12.0, text = "12";
  return {
      {"gpt2", "n_embd", big, "n_embd: out of range"},
      {"gpt2", "n_embd", negative, "n_embd: out of range"},
      {"gpt2", "n_embd", 0, "n_embd: out of range"},
      {"gpt2", "n_embd", floating, "n_embd: wrong type: got 12.0, expected an integer"},
      {"gpt2", "n_embd", text, "n_embd: wrong type"},
      {"gpt2", "n_embd", true, "n_embd: wrong type"},
      {"gpt2", "n_embd", Json::array(), "n_embd: wrong type"},
      {"gpt2", "n_embd", UINT64_MAX, "n_embd: out of range"},
      {"gpt2", "n_embd", 10, "n_embd: is not a multiple of n_head"},
      {"gpt2", "n_embd", 2'000'000'000, "a model of"},
      {"gpt2", "n_layer", 10'001, "n_layer: out of range"},
      {"gpt2", "n_layer", negative, "n_layer: out of range"},
      {"gpt2", "n_head", 5, "is not a multiple of n_head"},
      {"gpt2", "n_head", big, "n_head: out of range"},
      {"gpt2", "n_inner", big, "n_inner: out of range"},
      {"gpt2", "vocab_size", big, "vocab_size: out of range"},
      {"gpt2", "vocab_size", 0, "vocab_size: out of range"},
      {"gpt2", "n_positions", big, "n_positions: out of range"},
      {"gpt2", "resid_pdrop", 1.0, "resid_pdrop: out of range"},
      {"gpt2", "resid_pdrop", -0.1, "resid_pdrop: out of range"},
      {"gpt2", "attn_pdrop", text, "attn_pdrop: wrong type"},
      {"gpt2", "layer_norm_epsilon", 1e300, "layer_norm_epsilon: out of range"},
      {"gpt2", "initializer_range", -1.0, "initializer_range: out of range"},
      {"gpt2", "activation_function", "tanh", "activation is not implemented: got tanh"},
      {"gpt2", "activation_function", 7, "activation_function: wrong type"},
      {"gpt2", "activation_function", "a\nb", "got a\\x0ab"},
      {"gpt2", "scale_attn_by_inverse_layer_idx", true, "scale_attn_by_inverse_layer_idx: not implemented"},
      {"gpt2", "scale_attn_weights", false, "scale_attn_weights: not implemented"},
      {"gpt2", "add_cross_attention", true, "add_cross_attention: not implemented"},
      {"gpt2", "quantization_config", {{"bits", 4}}, "quantization_config: not implemented"},
      {"gpt2", "tie_word_embeddings", 1, "tie_word_embeddings: wrong type"},
      {"gpt2", "model_type", "gpt3", "unknown family \"gpt3\""},
      {"gpt2", "model_type", 7, "model_type: wrong type"},
      {"gpt2", "model_type", "\x1b[2J", "unknown family \"\\x1b[2J\""},
      {"gpt2", "architectures", {"GPT2ForSequenceClassification"}, "class is not implemented"},
      {"gpt2", "architectures", {7}, "architectures: wrong type"},
      {"gpt2", "architectures", "GPT2LMHeadModel", "architectures: wrong type"},
      {"gpt2", "architectures", {{"a", 1}}, "architectures: wrong type"},
      {"bert", "hidden_size", big, "hidden_size: out of range"},
      {"bert", "num_hidden_layers", 1'000'000, "num_hidden_layers: out of range"},
      {"bert", "type_vocab_size", 0, "type_vocab_size: out of range"},
      {"bert", "position_embedding_type", "relative_key", "position_embedding_type: not implemented"},
      {"bert", "position_embedding_type", 7, "position_embedding_type: not implemented"},
      {"bert", "is_decoder", true, "is_decoder: not implemented"},
      {"bert", "is_encoder_decoder", true, "is_encoder_decoder: not implemented"},
      {"bert", "pruned_heads", {{"0", {1}}}, "pruned_heads: not implemented"},
      {"bert", "pad_token_id", -2, "pad_token_id: out of range"},
      {"bert", "pad_token_id", 1.5, "pad_token_id: wrong type"},
      {"bert", "hidden_act", "quick_gelu", "activation is not implemented"},
      {"llama", "num_key_value_heads", 3, "num_key_value_heads: does not divide"},
      {"llama", "num_key_value_heads", 0, "num_key_value_heads: out of range"},
      {"llama", "head_dim", 3, "head_dim: must be even"},
      {"llama", "head_dim", big, "head_dim: out of range"},
      {"llama", "intermediate_size", negative, "intermediate_size: out of range"},
      {"llama", "rope_theta", 0, "rope_theta: out of range"},
      {"llama", "rope_theta", "10000", "rope_theta: wrong type"},
      {"llama", "rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}, "rope type is not implemented: got yarn"},
      {"llama", "rope_scaling", {{"rope_type", 7}}, "rope_type: wrong type"},
      {"llama", "rope_scaling", "linear", "rope_scaling: wrong type"},
      {"llama", "rope_parameters", {1}, "rope_parameters: wrong type"},
      {"llama", "rope_parameters", {{"rope_type", "linear"}, {"factor", -1}}, "factor: out of range"},
      {"llama", "partial_rotary_factor", 0.5, "partial_rotary_factor: not implemented"},
      {"llama", "attention_bias", "yes", "attention_bias: wrong type"},
      {"llama", "mlp_bias", 1, "mlp_bias: wrong type"},
      {"llama", "rms_norm_eps", true, "rms_norm_eps: wrong type"},
  };
}

std::vector<Attack> attacks() {
  std::vector<Attack> all = json_attacks(good("gpt2"), {
      {"NaN", "not valid JSON", "{\"model_type\":\"gpt2\",\"resid_pdrop\":NaN}"},
      {"double beyond all", "not valid JSON", "{\"model_type\":\"gpt2\",\"resid_pdrop\":1e999}"},
      {"array, named", "not a JSON object: got array", "[]"},
      {"null, named", "not a JSON object: got null", "null"},
      {"no family", "\"model_type\" is missing", "{}"},
      {"key twice", "\"n_embd\" stands twice", "{\"model_type\":\"gpt2\",\"n_embd\":12,\"n_embd\":16}"},
      {"family of a megabyte", "unknown family", "{\"model_type\":\"" + std::string(1 << 20, 'g') + "\"}"},
  });
  for (const Change& change : changes()) {
    std::string name = fmt::format("{}: {} = {}", change.family, change.key, dump_json(change.value));
    all.push_back({name, change.words, changed(change)});
  }
  return all;
}

std::string text_of(const Json& json, const std::string& place) {
  return config_text(model_from_config(json, place).config, at::kFloat);
}

void read(const std::string& bytes) {
  std::string written = text_of(parse_json(bytes, "config.json"), "config.json");
  same(written, text_of(parse_json(written, "again"), "again"), "a config");
}

}  // namespace

Reader model_config_reader() {
  Json hooks = small("gpt2");
  hooks["auto_map"] = {{"AutoModel", "evil.py--Evil"}};
  return {"model_config", 4,         "config.json",
          read,           attacks(), {good("gpt2"), good("bert"), good("llama"), dump_json(hooks)}};
}

}  // namespace echelon::hostile
