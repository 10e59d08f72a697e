// Hugging Face model folders in and out: what a trainer or a command needs of them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <c10/core/ScalarType.h>
#include <google/protobuf/any.pb.h>

#include "cluster/base/json.h"
#include "models/architecture.h"
#include "models/model.h"
#include "sharding/seed.h"
#include "sharding/weights.h"

namespace echelon {

/// The shape of a model of a known family, as a recipe gives it; what is left out takes the family's default.
struct ModelShape {
  std::optional<int64_t> layers, width, heads;
  std::optional<int64_t> kv_heads;      ///< llama; default: heads
  std::optional<int64_t> head_width;    ///< llama; default: width / heads
  std::optional<int64_t> feed_forward;  ///< default: 4 width (llama: 8/3 width, rounded up to a multiple of 32)
  std::optional<int64_t> vocabulary, positions;
  std::optional<int64_t> token_types;       ///< bert
  std::optional<double> dropout;            ///< hidden, embedding and residual; default: 0
  std::optional<double> attention_dropout;  ///< default: 0
  std::optional<double> norm_epsilon, initializer_range;
  std::optional<bool> tied;
  std::optional<double> rope_theta;  ///< llama
};

/// A model to be built, and where its weights come from.
struct ModelSource {
  Json config;  ///< to be written beside the weights; keys that Echelon does not know are kept
  Architecture architecture;
  std::string tokenizer_folder;          ///< holds the tokenizer's files; "": none
  std::unique_ptr<TensorReader> reader;  ///< null: every tensor is drawn
  std::vector<std::string> drawn;        ///< tensors (of a new head) that the reader does not have
  std::vector<google::protobuf::Any> adapters;   ///< options of those whose tensors the reader has
  std::vector<std::string> warnings;     ///< one sentence each; load_weights() says them
};

struct Family;
const Family& family_of(const ModelSource& source);

struct SourceOptions {
  bool language_head = false;  ///< give a bare model (GPT2Model, LlamaModel, BertModel) its family's head, drawn
};

/// Model types that can be read and written: "bert", "gpt2", "llama".
std::vector<std::string> model_families();

/// A folder with config.json and model.safetensors or its shards. Everything is checked here, before any allocation:
/// names and shapes of all tensors against the config. Tensors are read slice by slice, later, by the reader. Errors:
/// Error::input for an unknown family, a setting that changes the maths and is not implemented, damaged files, missing
/// tensors or wrong shapes, weights as a pickle.
ModelSource open_model(const std::string& folder, SourceOptions options = {});

/// A model to be drawn. `place` (a file's name) stands in errors. Errors: Error::input, as above.
ModelSource model_from_config(const Json& config, const std::string& place, SourceOptions options = {});
ModelSource model_from_config_file(const std::string& path, SourceOptions options = {});

/// The config.json of a language model of this shape, without special ids (pad_token_id, …: null). Errors:
/// Error::recipe for an unknown family (naming the known ones) and for a shape that the family cannot have.
Json config_of_shape(const std::string& family, const ModelShape& shape);

/// Throws Error::recipe naming the sizes of `tp` that would do, unless it divides the attention and key heads.
void check_tensor_parallel(const Architecture& architecture, int tp);

/// Gives every tensor of the model its value: from the source's reader, drawn from `seed` where there is none. Says the
/// source's warnings on rank 0. Collective.
void load_weights(Model& model, ModelSource& source, const Seed& seed);

struct FolderOptions {
  at::ScalarType dtype = at::ScalarType::Float;  ///< of the tensors written
  int64_t max_shard_bytes = 5'000'000'000;
  TensorReader* frozen_from = nullptr;  ///< has tensors that do not learn as they were before they were rounded to the
                                        ///< dtype of values; null: what the shards hold
  std::string tokenizer_from;  ///< folder whose tokenizer files are copied through; "": none
};

/// Writes the masters of `model` as a folder that transformers loads; rank r writes every (world size)th shard. The
/// folder appears by one rename; one that holds a model already is replaced, one that holds anything else is refused.
/// Collective. Errors: Error::storage, on every rank.
void write_model_folder(const std::string& folder, Model& model, const Json& config, const FolderOptions& options = {});

}  // namespace echelon
