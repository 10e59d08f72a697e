#include "tests/models/model_folders.h"

#include <cstring>
#include <filesystem>

namespace echelon::testing {

namespace fs = std::filesystem;

void ModelFolders::SetUp() {
  folder_ = fs::temp_directory_path() / fmt::format("echelon-models-{}", random_name());
  make_folders(folder_);
}

void ModelFolders::TearDown() { fs::remove_all(folder_); }

Json config_of(const std::string& family, std::optional<bool> tied) {
  ModelShape shape{
      .layers = 2, .width = 12, .heads = 4, .feed_forward = 20, .vocabulary = 23, .positions = 9, .tied = tied};
  if (family == "llama") {
    shape.kv_heads = 2;
    shape.head_width = 6;
  }
  return config_of_shape(family, shape);
}

Json with(Json config, const std::string& key, Json value) {
  config[key] = std::move(value);
  return config;
}

std::string sentence_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

ModelSource source_of(const Json& config) { return model_from_config(config, "config.json"); }

Distinct::Distinct(const Architecture& architecture) {
  for (const NamedShape& tensor : tensors_of(architecture)) sizes_[tensor.name] = tensor.sizes;
}

at::Tensor Distinct::read(const std::string& name, const Slice& slice) {
  return keyed_normal(Seed(7).with(name), sizes_.at(name), slice);
}

void write(const Group& world, const std::string& folder, const Json& config, MeshShape shape,
           const FolderOptions& options) {
  ModelSource source = source_of(config);
  Mesh mesh(world, shape);
  Zero zero(mesh, {});
  Model model(source.architecture, zero);
  model.allocate();
  Distinct values(source.architecture);
  model.weights().load(values);
  write_model_folder(folder, model, source.config, options);
}

void write_alone(const std::string& folder, const Json& config, const FolderOptions& options) {
  Session session = Session::alone();
  write(session.world(), folder, config, {}, options);
}

Tensors read_tensors(const std::string& folder) {
  SafetensorsFolder files = SafetensorsFolder::open(folder);
  Tensors tensors;
  for (const TensorEntry* entry : files.entries()) {
    at::Tensor values = at::empty(entry->shape, at::kFloat);
    std::memcpy(values.data_ptr(), files.data(*entry), entry->size());
    tensors[entry->name] = values;
  }
  return tensors;
}

static void write_tensors(const std::string& folder, const Tensors& tensors) {
  std::vector<TensorEntry> entries;
  for (const auto& [name, values] : tensors)
    entries.push_back({.name = name, .dtype = DType::F32, .shape = values.sizes().vec()});
  SafetensorsWriter writer(join_path(folder, "model.safetensors"), entries, {});
  for (const auto& [name, values] : tensors) {
    at::Tensor flat = values.contiguous();
    writer.write(name, flat.const_data_ptr(), flat.nbytes());
  }
  writer.finish();
}

void change_tensors(const std::string& folder, const std::function<void(Tensors&)>& change) {
  Tensors tensors = read_tensors(folder);
  for (auto& [name, values] : tensors) values = values.clone();
  change(tensors);
  write_tensors(folder, tensors);
}

void change_config(const std::string& folder, const std::string& key, Json value) {
  std::string file = join_path(folder, "config.json");
  Json config = parse_json(read_file(file, Error::Kind::input, 1 << 20), file);
  if (value.is_discarded())
    config.erase(key);
  else
    config[key] = std::move(value);
  write_file_atomically(file, dump_json(config, 2));
}

std::vector<Json> all_configs() {
  std::vector<Json> configs;
  for (const std::string& family : model_families()) {
    for (bool tied : {false, true}) configs.push_back(config_of(family, tied));
  }
  configs.push_back(with(config_of("gpt2"), "architectures", {"GPT2Model"}));
  configs.push_back(with(config_of("llama"), "architectures", {"LlamaModel"}));
  configs.push_back(with(config_of("bert"), "architectures", {"BertModel"}));
  configs.push_back(with(with(config_of("llama"), "attention_bias", true), "mlp_bias", true));
  configs.push_back(with(config_of("llama"), "head_dim", 4));
  return configs;
}

}  // namespace echelon::testing
