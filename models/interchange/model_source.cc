// From a folder or a config to a model that can be built.
#include "cluster/base/files.h"
#include "cluster/base/log.h"
#include "models/interchange/config_writer.h"
#include "models/interchange/tensor_matcher.h"
#include "models/interchange/tokenizer_files.h"

namespace echelon {

namespace {

/// What `architectures` asks for: true a language model, false a bare one; nothing when it does not say.
std::optional<bool> asks_for_head(const Json& config, const Family& family, const std::string& place) {
  auto found = config.find("architectures");
  if (found == config.end() || found->is_null() || found->empty()) return {};
  if (!found->is_array() || !found->front().is_string()) {
    throw Error::input(place + ": architectures", "wrong type").expected("a list of one class name");
  }
  std::string name = found->front();
  if (name == family.bare_class) return false;
  if (family.is_head_class(name)) return true;
  throw Error::input(place + ": architectures", "class is not implemented")
      .got(name)
      .expected(fmt::format("{} or {}", family.head_class, family.bare_class));
}

/// The architecture without what only the tensors can tell: no pooler, tied as the config says.
Architecture read_architecture(const Json& config, const Family& family, const std::string& place, Error::Kind kind,
                               std::vector<std::string>& warnings) {
  ConfigReader reader(config, place, kind);
  reader.refuse("quantization_config");
  Architecture architecture;
  family.read(reader, architecture);
  architecture.tied = reader.flag("tie_word_embeddings", family.tied_by_default);
  warnings.insert(warnings.end(), reader.warnings().begin(), reader.warnings().end());
  return architecture;
}

}  // namespace

const Family& family_of(const ModelSource& source) {
  return find_family(source.config.at("model_type"), "config", Error::Kind::internal);
}

ModelSource open_model(const std::string& path, SourceOptions options) {
  ModelFolder folder = ModelFolder::open(path);
  const Family& family = folder.family();
  ModelSource source{.config = folder.config()};
  Architecture& a = source.architecture;
  a = read_architecture(source.config, family, folder.config_place(), Error::Kind::input, source.warnings);
  bool stored_head = folder.has_prefix() || has_head_tensors(folder);
  a.head = asks_for_head(source.config, family, folder.config_place()).value_or(stored_head) || options.language_head;
  a.pooler = !a.head && has_pooler_tensors(folder);
  if (a.head && a.tied) a.tied = stored_as_tied(folder, source.warnings);
  Match match = match_tensors(folder, a);
  source.drawn = std::move(match.drawn);
  source.warnings.insert(source.warnings.end(), match.warnings.begin(), match.warnings.end());
  source.config = completed_config(source.config, a);
  if (has_tokenizer(path)) source.tokenizer_folder = path;
  source.reader = std::make_unique<FolderReader>(std::move(folder), std::move(match.stored));
  return source;
}

ModelSource model_from_config(const Json& config, const std::string& place, SourceOptions options) {
  if (!config.is_object()) throw Error::input(place, "not a JSON object").got(config.type_name());
  const Family& family = find_family(json_string(config, "model_type", place), place, Error::Kind::input);
  ModelSource source{.config = config};
  Architecture& a = source.architecture;
  a = read_architecture(config, family, place, Error::Kind::input, source.warnings);
  a.head = asks_for_head(config, family, place).value_or(true) || options.language_head;
  a.pooler = !a.head && family.model_type == "bert";
  source.config = completed_config(config, a);
  return source;
}

ModelSource model_from_config_file(const std::string& path, SourceOptions options) {
  return model_from_config(read_config(path), path, options);
}

Json config_of_shape(const std::string& family_name, const ModelShape& shape) {
  const std::string place = "model.architecture";
  const Family& family = find_family(family_name, place + ": family", Error::Kind::recipe);
  Json config = family.write(shape);
  config["model_type"] = family.model_type;
  for (const char* key : {"pad_token_id", "bos_token_id", "eos_token_id"}) config[key] = nullptr;
  config["tie_word_embeddings"] = shape.tied.value_or(family.tied_by_default);
  std::vector<std::string> warnings;
  Architecture a = read_architecture(config, family, place, Error::Kind::recipe, warnings);
  return completed_config(config, a);
}

void check_tensor_parallel(const Architecture& architecture, int tp) {
  auto divides = [&](int64_t size) { return architecture.heads % size == 0 && architecture.kv_heads % size == 0; };
  if (divides(tp)) return;
  std::vector<int64_t> sizes;
  for (int64_t size = 1; size <= architecture.kv_heads; ++size) {
    if (divides(size)) sizes.push_back(size);
  }
  throw Error::recipe("mesh.tp",
                      fmt::format("tensor parallel size {} does not divide {} attention heads and {} key heads", tp,
                                  architecture.heads, architecture.kv_heads))
      .expected(fmt::format("{}", fmt::join(sizes, ", ")));
}

void load_weights(Model& model, ModelSource& source, const Seed& seed) {
  Weights& weights = model.weights();
  const Mesh& mesh = weights.units.front()->zero().mesh;
  if (mesh.world().rank() == 0) {
    for (const std::string& warning : source.warnings) EC_LOG(warning, "{}", warning);
  }
  DrawnTensors draw(weights, seed);
  if (!source.reader) {
    weights.load(draw);
  } else {
    LayeredTensors reader(*source.reader, draw);
    weights.load(reader);
  }
}

}  // namespace echelon
