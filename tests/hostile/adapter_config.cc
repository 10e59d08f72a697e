// adapter_config.json of a PEFT folder, laid over a small model.
#include "cluster/base/files.h"
#include "comm/session.h"
#include "models/adapter_set.h"
#include "tests/cluster/testing.h"
#include "tests/hostile/reader.h"

namespace echelon {
void register_lora(Registry& registry);
void register_ia3(Registry& registry);
void register_prefix_tuning(Registry& registry);
void register_prompt_tuning(Registry& registry);
void register_p_tuning(Registry& registry);
void register_bottleneck(Registry& registry);
}  // namespace echelon

namespace echelon::hostile {

namespace {

std::string lora(const std::string& more = "") {
  return "{\"peft_type\":\"LORA\",\"r\":2,\"target_modules\":[\"c_attn\"]" + (more.empty() ? "" : "," + more) + "}";
}

/// A LoRA whose targets are a pattern.
std::string targets(const std::string& pattern) {
  return dump_json(Json{{"peft_type", "LORA"}, {"r", 2}, {"target_modules", pattern}});
}

std::string many_patterns(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += fmt::format("{}\"{}\":1", i ? "," : "", i);
  return lora("\"rank_pattern\":{" + text + "}");
}

std::vector<Attack> attacks() {
  return json_attacks(lora(), {
      {"no type", "\"peft_type\" is missing", "{}"},
      {"type is a number", "peft_type: wrong type", "{\"peft_type\":7}"},
      {"type is null", "peft_type: wrong type", "{\"peft_type\":null}"},
      {"unknown type", "method is not implemented: got VERA", "{\"peft_type\":\"VERA\"}"},
      {"type that forges a line", "got LORA\\x0aecho", "{\"peft_type\":\"LORA\\necho\"}"},
      {"key twice", "\"r\" stands twice", lora("\"r\":4")},
      {"rank 0", "r: out of range", "{\"peft_type\":\"LORA\",\"r\":0}"},
      {"rank below 0", "r: out of range", "{\"peft_type\":\"LORA\",\"r\":-2}"},
      {"rank of 2^31", "r: out of range", "{\"peft_type\":\"LORA\",\"r\":2147483648}"},
      {"rank with a point", "r: wrong type", "{\"peft_type\":\"LORA\",\"r\":2.0}"},
      {"rank above the matrix", "expected 1 to 12", "{\"peft_type\":\"LORA\",\"r\":13}"},
      {"alpha 0", "lora_alpha: out of range", lora("\"lora_alpha\":0")},
      {"alpha of text", "lora_alpha: wrong type", lora("\"lora_alpha\":\"16\"")},
      {"alpha beyond all", "not valid JSON", lora("\"lora_alpha\":1e999")},
      {"dropout 1", "lora_dropout: out of range", lora("\"lora_dropout\":1.0")},
      {"rslora of text", "use_rslora: wrong type", lora("\"use_rslora\":\"yes\"")},
      {"dora of 1", "use_dora: wrong type", lora("\"use_dora\":1")},
      {"unknown bias", "bias: unknown value: got some", lora("\"bias\":\"some\"")},
      {"lora_bias", "lora_bias: not implemented", lora("\"lora_bias\":true")},
      {"layer_replication", "layer_replication: not implemented", lora("\"layer_replication\":[[0,1]]")},
      {"target_parameters", "target_parameters: not implemented", lora("\"target_parameters\":[\"a\"]")},
      {"targets of numbers", "target_modules: wrong type", "{\"peft_type\":\"LORA\",\"target_modules\":[7]}"},
      {"targets are an object", "target_modules: wrong type", "{\"peft_type\":\"LORA\",\"target_modules\":{}}"},
      {"target that is none", "\"c_atn\" matches no module", "{\"peft_type\":\"LORA\",\"target_modules\":[\"c_atn\"]}"},
      {"pattern that is none", "no regular expression", targets("(")},
      {"pattern that matches nothing", "no module of the model is left to adapt", targets("x")},
      {"pattern that never ends", "no module of the model is left to adapt", targets("(([a-z_0-9.])*)*x")},
      {"pattern with a back-reference", "no regular expression", targets("(a)\\1")},
      {"pattern of 100,000 brackets", "a pattern is too long", targets(std::string(100'000, '('))},
      {"pattern that repeats", "repeats too much", targets("((a{99}){99}){99}")},
      {"pattern that repeats 2^64 times", "repeats too much", targets("a{18446744073709551616}")},
      {"excluded of numbers", "exclude_modules: wrong type", lora("\"exclude_modules\":[7]")},
      {"everything excluded", "no module of the model is left to adapt", lora("\"exclude_modules\":[\"c_attn\"]")},
      {"layers below 0", "layers_to_transform: wrong type", lora("\"layers_to_transform\":[-1]")},
      {"layers of text", "layers_to_transform: wrong type", lora("\"layers_to_transform\":\"0\"")},
      {"layer that is none", "no module of the model is left to adapt", lora("\"layers_to_transform\":[7]")},
      {"rank_pattern is an array", "rank_pattern: wrong type", lora("\"rank_pattern\":[1]")},
      {"rank_pattern of text", "rank_pattern: c_attn: wrong type", lora("\"rank_pattern\":{\"c_attn\":\"1\"}")},
      {"rank_pattern with a point", "rank_pattern: c_attn: wrong type", lora("\"rank_pattern\":{\"c_attn\":1.5}")},
      {"rank_pattern of 0", "rank_pattern: c_attn: out of range", lora("\"rank_pattern\":{\"c_attn\":0}")},
      {"rank_pattern of 1e300", "rank_pattern: c_attn: wrong type", lora("\"rank_pattern\":{\"c_attn\":1e300}")},
      {"rank_pattern of 2^64 - 1", "c_attn: out of range", lora("\"rank_pattern\":{\"c_attn\":18446744073709551615}")},
      {"rank_pattern that is no pattern", "no regular expression", lora("\"rank_pattern\":{\"(\":1}")},
      {"rank_pattern above the matrix", "expected 1 to 12", lora("\"rank_pattern\":{\"c_attn\":13}")},
      {"100,000 patterns", "too many patterns: got 100000", many_patterns(100'000)},
      {"alpha_pattern of null", "alpha_pattern: c_attn: wrong type", lora("\"alpha_pattern\":{\"c_attn\":null}")},
      {"alpha_pattern of -1", "alpha_pattern: c_attn: out of range", lora("\"alpha_pattern\":{\"c_attn\":-1}")},
      {"alpha_pattern of 1e300", "alpha_pattern: c_attn: out of range", lora("\"alpha_pattern\":{\"c_attn\":1e300}")},
      {"IA3 without a target", "matches no module", "{\"peft_type\":\"IA3\",\"target_modules\":[\"q_proj\"]}"},
      {"IA3 by a pattern that is none", "no regular expression", "{\"peft_type\":\"IA3\",\"target_modules\":\"[\"}"},
      {"IA3 feed-forward of numbers", "feedforward_modules: wrong type",
       "{\"peft_type\":\"IA3\",\"feedforward_modules\":[7]}"},
      {"prefix of 0 tokens", "num_virtual_tokens: out of range",
       "{\"peft_type\":\"PREFIX_TUNING\",\"num_virtual_tokens\":0}"},
      {"projected prefix", "prefix_projection: not implemented",
       "{\"peft_type\":\"PREFIX_TUNING\",\"prefix_projection\":true}"},
      {"prompt of text", "num_virtual_tokens: wrong type",
       "{\"peft_type\":\"PROMPT_TUNING\",\"num_virtual_tokens\":\"8\"}"},
      {"prompt of 2^31 tokens", "num_virtual_tokens: out of range",
       "{\"peft_type\":\"PROMPT_TUNING\",\"num_virtual_tokens\":2147483648}"},
  });
}

const Registry& registry() {
  static const Registry known = [] {
    Registry all;
    for (auto add : {register_lora, register_ia3, register_prefix_tuning, register_prompt_tuning, register_p_tuning,
                     register_bottleneck})
      add(all);
    return all;
  }();
  return known;
}

/// Declares the adapter's tensors over those of a small GPT-2; nothing is allocated.
void attach(AdapterSource adapter) {
  static Session session = Session::alone();
  ModelSource base = model_from_config(
      config_of_shape("gpt2", {.layers = 2, .width = 12, .heads = 4, .vocabulary = 23, .positions = 9}), "base");
  Mesh mesh(session.world(), {});
  Zero zero(mesh, {});
  Model model(base.architecture, zero);
  std::vector<AdapterSource> adapters;
  adapters.push_back(std::move(adapter));
  AdapterSet(registry(), family_of(base), std::move(adapters), {}).attach(model);
}

void read(const std::string& bytes) {
  static TemporaryFolder folder("/dev/shm");
  static const bool has_weights = [&] {
    uint64_t length = 2;
    write_file_atomically(folder.at("adapter_model.safetensors"),
                          std::string(reinterpret_cast<const char*>(&length), 8) + "{}");
    return true;
  }();
  std::FILE* file = has_weights ? std::fopen(folder.at("adapter_config.json").c_str(), "w") : nullptr;
  std::fwrite(bytes.data(), 1, bytes.size(), file);
  std::fclose(file);
  attach(adapter_source(folder.path(), registry()));
}

}  // namespace

Reader adapter_config_reader() {
  return {"adapter_config",
          4,
          "echelon-",
          read,
          attacks(),
          {lora(), targets(".*attn.c_attn"), targets("all-linear"), lora("\"rank_pattern\":{\"c_attn\":1}"),
           lora("\"layers_to_transform\":[0],\"use_dora\":true,\"alpha_pattern\":{\"c_attn\":2}"),
           "{\"peft_type\":\"IA3\",\"target_modules\":[\"c_attn\"],\"feedforward_modules\":[]}",
           "{\"peft_type\":\"PROMPT_TUNING\",\"num_virtual_tokens\":2}"}};
}

}  // namespace echelon::hostile
