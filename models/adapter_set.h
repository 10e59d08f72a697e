// The adapters of one run, with what trains beside them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cluster/base/registry.h"
#include "models/adapter.h"
#include "models/interchange/interchange.h"
#include "models/interchange/peft_folder.h"

namespace echelon {

/// One adapter to be made, and where its values come from.
struct AdapterSource {
  google::protobuf::Any options;
  std::shared_ptr<const PeftFolder> folder;  ///< null: its start is drawn, or derived from the base
  bool loaded_with_base = false;             ///< its trained tensors come from where the base's come from
};

/// The adapter of a PEFT folder. Errors: Error::input.
AdapterSource adapter_source(const std::string& folder, const Registry& registry);
AdapterSource adapter_source(PeftFolder folder, const Registry& registry);

class AdapterSet {
 public:
  /// `trainable`: regular expressions, matched anywhere in the names of the model's own tensors; these learn, too.
  /// Without adapters and patterns everything learns. Errors: Error::recipe.
  AdapterSet(const Registry& registry, const Family& family, std::vector<AdapterSource> sources,
             std::vector<std::string> trainable);

  bool empty() const { return adapters_.empty(); }
  /// Freezes, and adds the adapters' tensors. Before Model::allocate(). Errors: Error::recipe.
  void attach(Model& model);
  /// Gives the adapters' tensors the values of their folders or those that derive from the base, which is loaded.
  /// Collective. Errors: Error::input for a folder whose tensors do not fit.
  void load(Model& model);
  /// Errors: Error::input when a folder holds tensors of the base that differ from it: they cannot be folded in and
  /// out.
  void refuse_trained_base() const;
  /// How all of them become part of the base, as their tensors are now, the same on every rank. Collective. Errors:
  /// Error::input.
  std::vector<MergeRule> merge_rules(const Model& model) const;
  /// The same of adapters that come from folders, for a model that need not be allocated.
  std::vector<MergeRule> stored_merge_rules(const Model& model) const;
  /// Folds all of them into what the ranks own of the base, for good, and takes them out of the forward pass, which
  /// then costs what the base costs. Collective. Errors: Error::input.
  void fold_into(Model& model) const;
  /// Gives the adapters' tensors the values that a new run would start from: what has been learnt is lost, unless it
  /// was merged (MergedShards). Collective.
  void start_anew(Model& model, const Seed& seed) const;
  /// Writes each adapter as a PEFT folder: `folder` itself, or below it by name where there are several. Collective.
  /// `base` goes into the config. Errors: Error::storage.
  void write(const std::string& folder, Model& model, const std::string& base) const;

 private:
  struct Member {
    std::unique_ptr<Adapter> adapter;
    std::string name;
    std::shared_ptr<const PeftFolder> folder;
    bool loaded_with_base;
    std::vector<AdapterTensor> beside = {};  ///< tensors of the base that its folder holds, too
  };

  static void blaming_folder(const Member& member, const std::function<void()>& action);
  std::vector<MergeRule> merge_rules(const Model& model,
                                     const std::function<WholeTensors(const Member&)>& values_of) const;
  /// The model's own tensors that `chooses` picks, as they are stored beside an adapter of this architecture. Errors:
  /// Error::recipe for a part of one.
  std::vector<AdapterTensor> stored_beside(const Model& model, const Architecture& architecture,
                                           const std::function<bool(const Parameter&)>& chooses) const;

  const Family& family_;
  std::vector<Member> adapters_;
  std::vector<std::string> trainable_;
};

}  // namespace echelon
