#include "models/interchange/config_writer.h"

namespace echelon {

namespace {

// The version whose files ours are held against.
constexpr const char* kTransformersVersion = "5.23.0";

std::string text_of(const Json& json) { return dump_json(json, {.indent = 2, .sort_keys = true}) + "\n"; }

}  // namespace

Json completed_config(Json config, const Architecture& architecture) {
  const Family& family = find_family(config.at("model_type"), "config", Error::Kind::internal);
  config["architectures"] = Json::array({architecture.head ? family.head_class : family.bare_class});
  if (architecture.head) config["tie_word_embeddings"] = architecture.tied;
  family.finish(config, architecture);
  for (const std::string& key : family.float_keys) {
    auto found = config.find(key);
    if (found != config.end() && found->is_number_integer()) *found = found->get<double>();
  }
  if (!config.contains("transformers_version")) config["transformers_version"] = kTransformersVersion;
  return config;
}

std::string config_text(Json config, at::ScalarType dtype) {
  for (const char* key : {"dtype", "torch_dtype"}) config[key] = dtype_text(dtype);
  return text_of(config);
}

std::string generation_config_text(const Json& config) {
  Json generation = {{"_from_model_config", true}, {"transformers_version", config.at("transformers_version")}};
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    auto found = config.find(key);
    if (found != config.end() && !found->is_null()) generation[key] = *found;
  }
  return text_of(generation);
}

std::string dtype_text(at::ScalarType dtype) {
  switch (dtype) {
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kHalf:
      return "float16";
    case at::kBFloat16:
      return "bfloat16";
    default:
      throw Error::internal("export", "no dtype for weights").got(c10::toString(dtype));
  }
}

}  // namespace echelon
