// What is trained in place of a model's own weights.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <google/protobuf/any.pb.h>

#include "cluster/base/json.h"
#include "models/interchange/family.h"
#include "models/merge_rule.h"
#include "models/model.h"

namespace echelon {

/// Named whole tensors.
using WholeTensors = std::map<std::string, at::Tensor>;

/// One tensor of an adapter as PEFT stores it, made of one or more of ours.
struct AdapterTensor {
  struct Part {
    std::string parameter;    ///< name of ours
    bool transposed = false;  ///< ours is the transpose of what is stored
    double factor = 1;        ///< what is stored is this times ours
  };
  std::string key;             ///< behind "base_model.model.", or whole where PEFT gives it no prefix
  std::vector<Part> parts;     ///< row by row of a grid of matrices, or one below the other
  int64_t columns = 1;         ///< of the grid
  std::vector<int64_t> shape;  ///< as stored; the joined parts are reshaped to it
  bool prefixed = true;
};

/// Adds tensors to a model and changes what its layers compute; the model's own tensors stay frozen.
///
/// A Part: its maker is given the family and the adapter's name, attach() the model. Its tensors are named
/// `adapters.<name>.<where>.<what>`.
class Adapter {
 public:
  struct Context {
    const Family& family;
  };
  virtual ~Adapter() = default;

  /// Declares tensors and takes its places in the model, before Model::allocate(). The model must not outlive this.
  virtual void attach(Model& model) = 0;
  /// Values, of its own tensors, that depend on the base's; called when those are loaded. Collective, the same on every
  /// rank.
  virtual WholeTensors derive_values(Model& model) { return {}; }

  /// How it becomes part of the base, given the whole values of its own tensors. Errors: Error::input where it cannot.
  virtual std::vector<MergeRule> merge_rules(const WholeTensors& own) const;

  /// Its keys of adapter_config.json, `peft_type` among them.
  virtual Json peft_config() const = 0;
  virtual std::vector<AdapterTensor> peft_tensors() const = 0;
  /// Adds to the values of its tensors what is stored in their place.
  virtual void complete(WholeTensors& values) const {}
};

/// How a `peft_type` of adapter_config.json is read; registered by name beside the adapter.
struct PeftType {
  /// The options of the Part, which also names it. Errors: Error::input for settings that change the maths and are not
  /// known.
  google::protobuf::Any (*options)(const ConfigReader& config);
};

/// Options as a recipe holds them.
google::protobuf::Any packed(const google::protobuf::Message& options);

/// A module of the family's own model that adapters can target: a linear, or several of ours stored as one.
struct TargetModule {
  std::string name;         ///< "transformer.h.0.attn.c_attn"
  bool transposed = false;  ///< its weight is stored [in, out]
  bool is_head = false;     ///< over the vocabulary: "all-linear" leaves it out
  std::vector<Linear*> linears;
  Embedding* embedding = nullptr;

  int64_t inputs() const;
  int64_t outputs() const;
};

/// How targets are chosen, by PEFT's rules: `targets` are names or ends of names behind a dot, or the one word
/// "all-linear"; `pattern` is a regular expression for the whole name. `layers`, when not empty, keeps only those
/// layers' modules.
struct TargetChoice {
  std::vector<std::string> targets, excluded;
  std::string pattern;
  std::vector<int64_t> layers;
};

/// Errors: Error::recipe when a choice matches nothing, with the nearest names.
std::vector<TargetModule> target_modules(Model& model, const Family& family, const TargetChoice& choice);
/// Whether `name` is `target` or ends with it behind a dot.
bool is_target(const std::string& name, const std::string& target);

}  // namespace echelon
