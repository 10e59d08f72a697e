// A family of models: the names of its tensors and the keys of its config. A file of facts, not a model class.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cluster/base/json.h"
#include "models/architecture.h"
#include "models/interchange/config_reader.h"
#include "models/interchange/interchange.h"

namespace echelon {

/// One line of a family's table of names. Both sides are stems, to which `.weight` or `.bias` is added, or whole names;
/// `L` stands for a layer's index.
struct NameRule {
  std::string_view ours, theirs;
  bool transposed = false;   ///< the matrix is stored [in, out] (GPT-2's Conv1D)
  int part = 0, parts = 1;   ///< one of `parts` equal pieces side by side on the stored tensor's last dim
  bool only_untied = false;  ///< a second copy, written where the head is not tied; it wins on reading
};

/// Where one of our tensors stands in a checkpoint of the family's language model.
struct TensorPlace {
  std::string name;  ///< with the base prefix
  bool transposed = false;
  int part = 0, parts = 1;
  bool only_untied = false;

  /// The stored tensor's shape, given ours.
  std::vector<int64_t> stored_sizes(std::vector<int64_t> sizes) const;
};

struct Family {
  std::string model_type;
  std::string base_prefix;                 ///< of all tensors but the head's, in a language model's checkpoint
  std::string head_class, bare_class;      ///< values of `architectures`
  std::vector<std::string> wider_classes;  ///< read as head_class, without what they have more
  std::vector<NameRule> names;
  std::vector<std::string> float_keys;               ///< written with a decimal point even when whole
  bool (*is_ignored)(std::string_view stored_name);  ///< buffers that old checkpoints carry
  bool tied_by_default;
  std::vector<std::string> lora_targets;             ///< PEFT's choice where an adapter names none
  std::vector<std::string> ia3_targets;
  std::vector<std::string> ia3_feed_forward;         ///< of those, the ones whose input is scaled

  /// Reads a config: everything but the head, the pooler and whether it is tied.
  void (*read)(const ConfigReader& config, Architecture& architecture);
  /// The family's own keys for a shape.
  Json (*write)(const ModelShape& shape);
  /// Makes keys that have two spellings say the same in both.
  void (*finish)(Json& config, const Architecture& architecture);

  /// All places of one of our tensors, the canonical first.
  std::vector<TensorPlace> places(const std::string& tensor) const;
  bool is_head_class(const std::string& name) const;
  bool is_generative() const { return model_type != "bert"; }
};

/// Errors: of `kind`, naming the known families.
const Family& find_family(const std::string& model_type, const std::string& place, Error::Kind kind);

const Family& bert_family();
const Family& gpt2_family();
const Family& llama_family();

/// `value`, or null.
Json or_null(const std::optional<int64_t>& value);

}  // namespace echelon
