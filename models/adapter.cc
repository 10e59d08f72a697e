#include "models/adapter.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "cluster/base/error.h"
#include "cluster/base/pattern.h"
#include "cluster/base/text.h"
#include "models/interchange/stored_form.h"

namespace echelon {

namespace {

/// All modules that could be targets, in the order of the forward pass.
std::vector<TargetModule> all_modules(Model& model, const Family& family) {
  StoredForm form(family, model.architecture());
  std::vector<TargetModule> modules;
  auto add = [&](const std::string& ours, Linear* linear, Embedding* embedding) {
    TensorPlace place = form.places(ours + ".weight").front();
    std::string name = place.name.substr(0, place.name.rfind('.'));
    if (modules.empty() || modules.back().name != name) {
      modules.push_back(
          {.name = name, .transposed = place.transposed, .is_head = ours == "head", .embedding = embedding});
    }
    if (linear) modules.back().linears.push_back(linear);
  };
  add(model.token_embedding().name(), nullptr, &model.token_embedding());
  for (Linear* linear : model.linears()) add(linear->name(), linear, nullptr);
  return modules;
}

std::string last_part(const std::string& name) { return name.substr(name.rfind('.') + 1); }

/// "…h.3.attn…" as 3; -1: in no layer.
int64_t layer_of(const TargetModule& module) {
  if (module.linears.empty()) return -1;
  const std::string& name = module.linears.front()->name();
  return name.starts_with("layers.") ? std::stoll(name.substr(7)) : -1;
}

bool matches_any(const std::string& name, const std::vector<std::string>& targets) {
  return std::any_of(targets.begin(), targets.end(),
                     [&](const std::string& target) { return is_target(name, target); });
}

void check_every_target(const std::vector<TargetModule>& modules, const TargetChoice& choice) {
  for (const std::string& target : choice.targets) {
    if (target == "all-linear") continue;
    if (std::any_of(modules.begin(), modules.end(), [&](const TargetModule& m) { return is_target(m.name, target); }))
      continue;
    std::set<std::string> names;
    for (const TargetModule& module : modules) names.insert(last_part(module.name));
    throw Error::recipe("adapter.targets", fmt::format("\"{}\" matches no module of the model", target))
        .remedy(did_you_mean(target, {names.begin(), names.end()}));
  }
}

}  // namespace

std::vector<MergeRule> Adapter::merge_rules(const WholeTensors&) const {
  throw Error::input("adapter", "cannot become part of the base's weights").got(peft_config().value("peft_type", ""));
}

google::protobuf::Any packed(const google::protobuf::Message& options) {
  google::protobuf::Any any;
  any.PackFrom(options);
  return any;
}

int64_t TargetModule::inputs() const {
  return embedding ? embedding->weight().layout().sizes[0] : linears.front()->weight().layout().sizes[1];
}

int64_t TargetModule::outputs() const {
  if (embedding) return embedding->weight().layout().sizes[1];
  int64_t sum = 0;
  for (const Linear* linear : linears) sum += linear->weight().layout().sizes[0];
  return sum;
}

bool is_target(const std::string& name, const std::string& target) {
  return name == target || name.ends_with("." + target);
}

std::vector<TargetModule> target_modules(Model& model, const Family& family, const TargetChoice& choice) {
  std::vector<TargetModule> modules = all_modules(model, family), chosen;
  check_every_target(modules, choice);
  bool all_linear = std::find(choice.targets.begin(), choice.targets.end(), "all-linear") != choice.targets.end();
  std::optional<Pattern> pattern;
  if (!choice.pattern.empty()) pattern.emplace(choice.pattern, "adapter.target_pattern");
  for (TargetModule& module : modules) {
    bool named = matches_any(module.name, choice.targets) || (pattern && pattern->matches_whole(module.name)) ||
                 (all_linear && !module.embedding && !module.is_head);
    bool in_layers = choice.layers.empty() ||
                     std::find(choice.layers.begin(), choice.layers.end(), layer_of(module)) != choice.layers.end();
    if (named && in_layers && !matches_any(module.name, choice.excluded)) chosen.push_back(std::move(module));
  }
  if (chosen.empty()) {
    throw Error::recipe("adapter.targets", "no module of the model is left to adapt")
        .got(choice.pattern.empty() ? fmt::format("{}", fmt::join(choice.targets, ", ")) : choice.pattern);
  }
  return chosen;
}

}  // namespace echelon
