// From a recipe's words to the options of the rooms below.
#pragma once

#include <string>
#include <vector>

#include "cluster/base/pattern.h"
#include "cluster/base/registry.h"
#include "models/adapter_set.h"
#include "models/interchange/interchange.h"
#include "models/model.h"
#include "models/objective.h"
#include "runtime/optimizer.h"
#include "runtime/recipe/recipe.pb.h"
#include "runtime/source.h"
#include "sharding/zero.h"

namespace echelon {

ModelOptions model_options(const Recipe& recipe);
ZeroOptions zero_options(const Recipe& recipe);

/// The exchange that the recipe names, or its optimizer brings; else the exact one. Errors: Error::recipe, also when
/// both do, or where it cannot sum over the mesh's replicas.
std::unique_ptr<Exchange> exchange_of(const Recipe& recipe, const Registry& registry);

/// Architecture, config and weights that the recipe names. A vocabulary that it leaves out is the data's.
/// Errors: Error::recipe, Error::input.
ModelSource model_source(const Recipe& recipe, const Vocabulary& vocabulary);

/// Refuses a model, an objective and data that do not fit each other: Error::recipe.
void check_model(const Architecture& architecture, const Objective& objective, const Source& source);

/// The adapters that the recipe names or loads. Errors: Error::recipe, Error::input.
std::unique_ptr<AdapterSet> adapter_set(const Recipe& recipe, const ModelSource& source, const Registry& registry);

/// Refuses samples that, with what adapters put in front, are longer than the model's positions: Error::recipe.
void check_length(const Model& model, const Source& source);

/// Tokens of a training sample, as its source's options say; 0 where they do not.
int64_t sequence_length(const Recipe& recipe);

/// Accepted by every objective, for asking it about itself before there is data.
Vocabulary any_vocabulary();

/// The recipe's parameter groups.
class ParameterGroups {
 public:
  /// Errors: Error::recipe for a pattern that is no regular expression.
  explicit ParameterGroups(const Recipe& recipe);
  GroupRule rule_of(const std::string& parameter) const;

 private:
  std::vector<std::pair<Pattern, GroupRule>> rules_;
};

/// This rank's part of the square of the gradient norm, in float64; every element is counted by one rank of each
/// replica.
double square_norm_of(const std::vector<Owned>& owned, const Mesh& mesh);

}  // namespace echelon
