// BERT. Source: Devlin et al. 2019; names and keys as in transformers' configuration_bert and modeling_bert.
#include "models/interchange/family.h"

namespace echelon {

namespace {

void read(const ConfigReader& config, Architecture& a) {
  a.vocabulary = config.size("vocab_size", 30522);
  a.max_positions = config.size("max_position_embeddings", 512);
  a.token_types = config.size("type_vocab_size", 2);
  a.width = config.size("hidden_size", 768);
  a.layers = config.layers("num_hidden_layers", 12);
  a.heads = a.kv_heads = config.size("num_attention_heads", 12);
  a.head_width = a.width / a.heads;
  a.feed_forward = config.size("intermediate_size", 3072);
  a.activation = config.activation("hidden_act", "gelu");
  a.dropout = config.rate("hidden_dropout_prob", 0.1);
  a.attention_dropout = config.rate("attention_probs_dropout_prob", 0.1);
  a.norm_epsilon = config.number("layer_norm_eps", 0, 1, 1e-12);
  a.initializer_range = config.number("initializer_range", 0, 1, 0.02);
  a.padding_id = config.padding_id(a.vocabulary, 0);
  a.causal = false;
  a.norm_place = NormPlace::after;
  a.embedding_norm = true;
  a.final_norm = false;
  a.head_transform = a.head_bias = true;
  config.require("position_embedding_type", "absolute");
  config.refuse("is_decoder");
  config.refuse("add_cross_attention");
  config.refuse("is_encoder_decoder");
  config.refuse("pruned_heads");
  check_shape(a, config, "hidden_size", "num_attention_heads", "num_attention_heads");
}

Json write(const ModelShape& shape) {
  int64_t width = shape.width.value_or(768);
  return {{"vocab_size", shape.vocabulary.value_or(30522)},
          {"max_position_embeddings", shape.positions.value_or(512)},
          {"type_vocab_size", shape.token_types.value_or(2)},
          {"hidden_size", width},
          {"num_hidden_layers", shape.layers.value_or(12)},
          {"num_attention_heads", shape.heads.value_or(12)},
          {"intermediate_size", shape.feed_forward.value_or(4 * width)},
          {"hidden_act", "gelu"},
          {"hidden_dropout_prob", shape.dropout.value_or(0)},
          {"attention_probs_dropout_prob", shape.attention_dropout.value_or(0)},
          {"layer_norm_eps", shape.norm_epsilon.value_or(1e-12)},
          {"initializer_range", shape.initializer_range.value_or(0.02)},
          {"classifier_dropout", nullptr},
          {"use_cache", true}};
}

bool is_ignored(std::string_view name) { return name.ends_with(".position_ids"); }

}  // namespace

const Family& bert_family() {
  static const Family family{
      .model_type = "bert",
      .base_prefix = "bert.",
      .head_class = "BertForMaskedLM",
      .bare_class = "BertModel",
      .wider_classes = {"BertForPreTraining"},
      .names = {{"embeddings.tokens", "bert.embeddings.word_embeddings"},
                {"embeddings.positions", "bert.embeddings.position_embeddings"},
                {"embeddings.types", "bert.embeddings.token_type_embeddings"},
                {"embeddings.norm", "bert.embeddings.LayerNorm"},
                {"layers.L.attention.query", "bert.encoder.layer.L.attention.self.query"},
                {"layers.L.attention.key", "bert.encoder.layer.L.attention.self.key"},
                {"layers.L.attention.value", "bert.encoder.layer.L.attention.self.value"},
                {"layers.L.attention.output", "bert.encoder.layer.L.attention.output.dense"},
                {"layers.L.attention_norm", "bert.encoder.layer.L.attention.output.LayerNorm"},
                {"layers.L.feed_forward.up", "bert.encoder.layer.L.intermediate.dense"},
                {"layers.L.feed_forward.down", "bert.encoder.layer.L.output.dense"},
                {"layers.L.feed_forward_norm", "bert.encoder.layer.L.output.LayerNorm"},
                {"pooler", "bert.pooler.dense"},
                {"head.transform", "cls.predictions.transform.dense"},
                {"head.norm", "cls.predictions.transform.LayerNorm"},
                {"head.weight", "cls.predictions.decoder.weight"},
                {"head.bias", "cls.predictions.bias"},
                {.ours = "head.bias", .theirs = "cls.predictions.decoder.bias", .only_untied = true}},
      .float_keys = {"layer_norm_eps", "initializer_range", "hidden_dropout_prob", "attention_probs_dropout_prob",
                     "classifier_dropout"},
      .is_ignored = is_ignored,
      .tied_by_default = true,
      .lora_targets = {"query", "value"},
      .ia3_targets = {"key", "value", "output.dense"},
      .ia3_feed_forward = {"output.dense"},
      .read = read,
      .write = write,
      .finish = [](Json&, const Architecture&) {}};
  return family;
}

}  // namespace echelon
