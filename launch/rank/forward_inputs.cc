#include "launch/rank/forward_inputs.h"

#include <cstring>
#include <numeric>

#include <ATen/ATen.h>

#include "cluster/base/safetensors.h"
#include "cluster/base/text.h"

namespace echelon {

namespace {

const std::vector<std::string> kNames = {"input_ids", "attention_mask", "token_type_ids", "labels"};

at::Tensor read_integers(const SafetensorsFile& file, const TensorEntry& entry, const std::string& place) {
  if (entry.dtype != DType::I64) throw Error::input(place, "wrong dtype").got(dtype_name(entry.dtype)).expected("I64");
  at::Tensor values = at::empty(entry.shape, at::kLong);
  std::memcpy(values.data_ptr(), file.data(entry), entry.size());
  return values;
}

void check_range(const at::Tensor& values, int64_t below, const std::string& place) {
  int64_t smallest = values.min().item<int64_t>(), largest = values.max().item<int64_t>();
  if (smallest >= 0 && largest < below) return;
  throw Error::input(place, "out of range")
      .got(smallest < 0 ? smallest : largest)
      .expected(fmt::format("0 to {}", below - 1));
}

void check_values(const std::string& name, const at::Tensor& values, const Architecture& a, const std::string& place) {
  if (name == "input_ids") check_range(values, a.vocabulary, place);
  if (name == "attention_mask") check_range(values, 2, place);
  if (name == "labels") check_range(values.masked_fill(values.eq(-100), 0), a.vocabulary, place);
  if (name != "token_type_ids") return;
  if (a.token_types == 0) throw Error::input(place, "the model has no token types");
  check_range(values, a.token_types, place);
}

void check_ids_shape(const TensorEntry* ids, const Architecture& a, const std::string& path) {
  if (!ids) throw Error::input(path, "\"input_ids\" is missing");
  if (ids->shape.size() != 2 || ids->shape[0] < 1 || ids->shape[1] < 1) {
    throw Error::input(path + ": input_ids", "wrong shape").got(ids->shape).expected("[batch, length]");
  }
  if (ids->shape[1] > a.max_positions) {
    throw Error::input(path + ": input_ids", "sequences are too long for the model")
        .got(ids->shape[1])
        .expected(fmt::format("at most {}", a.max_positions));
  }
}

}  // namespace

Batch read_forward_inputs(const std::string& path, const Architecture& architecture) {
  SafetensorsFile file = SafetensorsFile::open(path);
  const TensorEntry* ids = file.find("input_ids");
  check_ids_shape(ids, architecture, path);
  Batch batch;
  for (const TensorEntry& entry : file.entries()) {
    std::string place = path + ": " + entry.name;
    if (std::find(kNames.begin(), kNames.end(), entry.name) == kNames.end()) {
      throw Error::input(place, "no input of this model")
          .expected(fmt::format("{}", fmt::join(kNames, ", ")))
          .remedy(did_you_mean(entry.name, kNames));
    }
    if (entry.shape != ids->shape) throw Error::input(place, "wrong shape").got(entry.shape).expected(ids->shape);
    at::Tensor values = read_integers(file, entry, place);
    check_values(entry.name, values, architecture, place);
    batch.tensors[entry.name] = values;
  }
  batch.samples.resize(batch.size());
  std::iota(batch.samples.begin(), batch.samples.end(), 0);
  return batch;
}

void align_labels(Batch& batch, bool causal) {
  at::Tensor labels = batch.at("labels");
  if (causal) {
    int64_t length = batch.length();
    at::Tensor shifted = at::full_like(labels, -100);
    shifted.narrow(1, 0, length - 1).copy_(labels.narrow(1, 1, length - 1));
    labels = shifted;
  }
  batch.tensors["labels"] = labels;
  batch.targets = labels.ne(-100).sum().item<int64_t>();
  if (batch.targets == 0) throw Error::input("labels", "no targets").expected("an id that is not -100");
}

Batch share_of(const Batch& batch, int rank, int ranks) {
  Batch share = batch;
  if (batch.size() % ranks != 0) {
    if (rank > 0 && share.has("labels")) share.tensors["labels"] = at::full_like(batch.at("labels"), -100);
    return share;
  }
  int64_t rows = batch.size() / ranks;
  for (auto& [name, values] : share.tensors) values = values.narrow(0, rank * rows, rows);
  share.samples = {batch.samples.begin() + rank * rows, batch.samples.begin() + (rank + 1) * rows};
  return share;
}

}  // namespace echelon
