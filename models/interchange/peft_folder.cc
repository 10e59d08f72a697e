#include "models/interchange/peft_folder.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "comm/together.h"
#include "models/interchange/folder_reader.h"

namespace echelon {

namespace {

constexpr int64_t kConfigLimit = 16 << 20;
constexpr const char* kPrefix = "base_model.model.";

std::string key_of(const AdapterTensor& tensor) { return (tensor.prefixed ? kPrefix : "") + tensor.key; }

at::Tensor stored_part(const AdapterTensor::Part& part, const at::Tensor& ours) {
  at::Tensor turned = part.transposed ? ours.t() : ours;
  return part.factor == 1 ? turned : turned * part.factor;
}

at::Tensor joined(const AdapterTensor& tensor, const WholeTensors& values) {
  std::vector<at::Tensor> rows, row;
  for (const AdapterTensor::Part& part : tensor.parts) {
    row.push_back(stored_part(part, values.at(part.parameter)));
    if (static_cast<int64_t>(row.size()) < tensor.columns) continue;
    rows.push_back(row.front().dim() == 1 ? at::cat(row, 0) : at::cat(row, 1));
    row.clear();
  }
  return at::cat(rows, 0).reshape(tensor.shape).to(at::kFloat).contiguous();
}

/// The inverse of joined(): puts the parts of a stored tensor into `values`.
void split(const AdapterTensor& tensor, at::Tensor stored, const Weights& weights, WholeTensors& values) {
  auto sizes_of = [&](size_t i) {
    std::vector<int64_t> sizes = weights.at(tensor.parts[i].parameter).layout().sizes;
    if (tensor.parts[i].transposed) std::swap(sizes[0], sizes[1]);
    return sizes;
  };
  int64_t dims = static_cast<int64_t>(sizes_of(0).size()), width = 0, row = 0;
  for (int64_t i = 0; i < tensor.columns; ++i) width += sizes_of(i).back();
  stored = dims == 1 ? stored.reshape({-1}) : stored.reshape({-1, width});
  for (size_t first = 0; first < tensor.parts.size(); first += tensor.columns) {
    int64_t column = dims == 1 ? row : 0, height = sizes_of(first)[0];
    for (size_t i = first; i < first + tensor.columns; ++i) {
      int64_t length = sizes_of(i).back();
      at::Tensor piece =
          dims == 1 ? stored.narrow(0, column, length) : stored.narrow(0, row, height).narrow(1, column, length);
      values[tensor.parts[i].parameter] = stored_part(tensor.parts[i], piece);
      column += length;
    }
    row = dims == 1 ? column : row + height;
  }
}

at::Tensor values_of(const SafetensorsFile& file, const TensorEntry& entry, const AdapterTensor& tensor,
                     const std::string& place) {
  if (entry.shape != tensor.shape) {
    throw Error::input(place, fmt::format("tensor \"{}\" has the wrong shape", entry.name))
        .got(fmt::format("[{}]", fmt::join(entry.shape, ", ")))
        .expected(fmt::format("[{}]", fmt::join(tensor.shape, ", ")));
  }
  at::TensorOptions options = at::TensorOptions().dtype(weight_type(entry, place));
  // Bytes in the file are not aligned.
  at::Tensor values = at::empty(entry.shape, options);
  std::copy_n(file.data(entry), entry.size(), static_cast<std::byte*>(values.data_ptr()));
  return values.to(at::kDouble);
}

std::string listed(const std::vector<std::string>& names) {
  constexpr size_t kShown = 5;
  std::vector<std::string> first(names.begin(), names.begin() + std::min(kShown, names.size()));
  return fmt::format("{}{}", fmt::join(first, ", "),
                     names.size() > kShown ? fmt::format(" and {} more", names.size() - kShown) : "");
}

}  // namespace

PeftFolder PeftFolder::open(const std::string& path) {
  if (!is_folder(path)) throw Error::input(path, "is no folder with an adapter");
  std::string config = join_path(path, "adapter_config.json"), weights = join_path(path, "adapter_model.safetensors");
  if (!exists(config)) throw Error::input(path, "has no adapter_config.json").remedy("name the folder that PEFT saved");
  if (!exists(weights) && exists(join_path(path, "adapter_model.bin"))) {
    throw Error::input(path, "holds its weights as a pickle, which can run code")
        .remedy("save them again as safetensors");
  }
  PeftFolder folder;
  folder.path_ = path;
  folder.config_ = parse_json(
      read_file(file_inside(path, "adapter_config.json", Error::Kind::input), Error::Kind::input, kConfigLimit),
      config);
  json_string(folder.config_, "peft_type", config);
  folder.tensors_ = SafetensorsFile::open(file_inside(path, "adapter_model.safetensors", Error::Kind::input));
  return folder;
}

PeftFolder PeftFolder::in_record(SafetensorsFile record, const std::string& path) {
  auto config = record.metadata().find("adapter_config");
  if (config == record.metadata().end()) throw Error::input(path, "holds no adapter");
  PeftFolder folder;
  folder.path_ = path;
  folder.prefix_ = "adapter.";
  folder.config_ = parse_json(config->second, path);
  folder.tensors_ = std::move(record);
  return folder;
}

std::vector<AdapterTensor> PeftFolder::among(const std::vector<AdapterTensor>& tensors) const {
  std::vector<AdapterTensor> found;
  for (AdapterTensor tensor : tensors) {
    size_t dot = tensor.key.rfind('.');
    for (const std::string& key : {tensor.key, tensor.key.substr(0, dot) + ".base_layer" + tensor.key.substr(dot)}) {
      tensor.key = key;
      if (tensors_.find(prefix_ + key_of(tensor))) found.push_back(tensor);
    }
  }
  return found;
}

WholeTensors PeftFolder::read(const std::vector<AdapterTensor>& tensors, const Weights& weights) const {
  WholeTensors values;
  std::vector<std::string> missing, unexpected;
  std::map<std::string, const AdapterTensor*> by_key;
  for (const AdapterTensor& tensor : tensors) {
    by_key[prefix_ + key_of(tensor)] = &tensor;
    if (!tensors_.find(prefix_ + key_of(tensor))) missing.push_back(key_of(tensor));
  }
  for (const TensorEntry& entry : tensors_.entries()) {
    if (entry.name.starts_with(prefix_) && !by_key.contains(entry.name)) unexpected.push_back(entry.name);
  }
  std::string place = join_path(path_, "adapter_model.safetensors");
  if (!missing.empty() || !unexpected.empty()) {
    throw Error::input(place, "does not fit the model")
        .got(unexpected.empty() ? "no tensors beyond those expected" : "unexpected " + listed(unexpected))
        .expected(missing.empty() ? "no further tensors" : "also " + listed(missing));
  }
  for (const auto& [key, tensor] : by_key) {
    const TensorEntry* entry = tensors_.find(key);
    if (entry) split(*tensor, values_of(tensors_, *entry, *tensor, place), weights, values);
  }
  return values;
}

void write_peft_folder(const std::string& folder, const Json& config, const std::vector<AdapterTensor>& tensors,
                       const WholeTensors& values, const Group& world) {
  on_first_rank(world, folder, [&] {
    make_folders(folder);
    std::vector<TensorEntry> entries;
    for (const AdapterTensor& tensor : tensors)
      entries.push_back({.name = key_of(tensor), .dtype = DType::F32, .shape = tensor.shape});
    SafetensorsWriter writer(join_path(folder, "adapter_model.safetensors"), entries, {{"format", "pt"}});
    for (const AdapterTensor& tensor : tensors) {
      at::Tensor stored = joined(tensor, values);
      writer.write(key_of(tensor), stored.const_data_ptr(), stored.nbytes());
    }
    writer.finish();
    write_file_atomically(join_path(folder, "adapter_config.json"),
                          dump_json(config, {.indent = 2, .sort_keys = true}) + "\n");
    fsync_folder(folder);
    return std::string();
  });
}

}  // namespace echelon
