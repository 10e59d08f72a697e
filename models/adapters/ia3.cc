// Learnt factors on activations. Source: Liu et al. 2022.
#include <algorithm>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/registry.h"
#include "models/adapter.h"
#include "models/adapters/ia3.pb.h"

namespace echelon {

namespace {

class Scaled : public Reparam {
 public:
  Scaled(const Parameter& factors, bool of_input) : factors_(factors), of_input_(of_input) {}
  at::Tensor input(const at::Tensor& x, const Pass&) const override { return of_input_ ? x * factors_.use() : x; }
  at::Tensor output(const at::Tensor& y, const Pass&) const override { return of_input_ ? y : y * factors_.use(); }

 private:
  const Parameter& factors_;
  bool of_input_;
};

class Scaling : public Adapter {
 public:
  Scaling(const Ia3& options, const Family& family) : options_(options), family_(family) {
    if (options_.target_pattern().empty() || options_.targets_size() == 0) return;
    throw Error::recipe("adapter.Ia3.target_pattern", "stands beside targets; give one of them");
  }

  void attach(Model& model) override {
    for (TargetModule& module : target_modules(model, family_, choice())) {
      if (module.embedding)
        throw Error::recipe("adapter.Ia3.targets", module.name + " is an embedding; only linears are scaled");
      Site site{.scales_input = scales_input(module.name), .module = std::move(module)};
      site.scales_input ? attach_input(site) : attach_outputs(site);
      sites_.push_back(std::move(site));
    }
  }

  Json peft_config() const override {
    std::vector<std::string> targets, feed_forward;
    bool turned = false;
    for (const Site& site : sites_) {
      targets.push_back(site.module.name);
      if (site.scales_input) feed_forward.push_back(site.module.name);
      turned = turned || site.module.transposed;
    }
    return {{"peft_type", "IA3"},
            {"target_modules", targets},
            {"feedforward_modules", feed_forward},
            {"fan_in_fan_out", turned},
            {"init_ia3_weights", true}};
  }

  std::vector<MergeRule> merge_rules(const WholeTensors& own) const override {
    std::vector<MergeRule> rules;
    for (const Site& site : sites_) {
      for (size_t i = 0; i < site.module.linears.size(); ++i) {
        const Linear& linear = *site.module.linears[i];
        at::Tensor factors = own.at(site.factors[site.scales_input ? 0 : i]).to(at::kDouble);
        rules.push_back({.parameter = linear.weight().name(),
                         .scale = site.scales_input ? factors.unsqueeze(0) : factors.unsqueeze(1)});
        if (!site.scales_input && linear.bias())
          rules.push_back({.parameter = linear.bias()->name(), .scale = factors.unsqueeze(1)});
      }
    }
    return rules;
  }

  std::vector<AdapterTensor> peft_tensors() const override {
    std::vector<AdapterTensor> all;
    for (const Site& site : sites_) {
      AdapterTensor tensor{.key = site.module.name + ".ia3_l"};
      for (const std::string& name : site.factors) tensor.parts.push_back({name});
      tensor.shape = site.scales_input ? std::vector<int64_t>{1, site.module.inputs()}
                                       : std::vector<int64_t>{site.module.outputs(), 1};
      all.push_back(std::move(tensor));
    }
    return all;
  }

 private:
  struct Site {
    bool scales_input;
    TargetModule module;
    std::vector<std::string> factors;  ///< names of tensors, one for each linear, or one for the input
  };

  bool names_targets() const { return options_.targets_size() > 0 || !options_.target_pattern().empty(); }

  TargetChoice choice() const {
    TargetChoice choice{.targets = {options_.targets().begin(), options_.targets().end()},
                        .excluded = {options_.exclude().begin(), options_.exclude().end()},
                        .pattern = options_.target_pattern()};
    if (!names_targets()) choice.targets = family_.ia3_targets;
    return choice;
  }

  bool scales_input(const std::string& module) const {
    std::vector<std::string> names{options_.feed_forward().begin(), options_.feed_forward().end()};
    if (!names_targets() && names.empty()) names = family_.ia3_feed_forward;
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) { return is_target(module, name); });
  }

  Parameter& add_factors(Site& site, Linear& linear, int64_t count, bool split) {
    Layout layout = split ? Layout::sharded({count}, 0, "tp") : Layout::replicated({count});
    site.factors.push_back(fmt::format("adapters.{}.{}.ia3_l", options_.name(), linear.name()));
    return linear.unit().add(site.factors.back(), layout, {.constant = 1});
  }

  void attach_input(Site& site) {
    Linear& first = *site.module.linears.front();
    Parameter& factors = add_factors(site, first, site.module.inputs(), first.split() == Split::row);
    scalings_.push_back(std::make_unique<Scaled>(factors, /*of_input=*/true));
    for (Linear* linear : site.module.linears) linear->attach(*scalings_.back());
  }

  void attach_outputs(Site& site) {
    for (Linear* linear : site.module.linears) {
      int64_t outputs = linear->weight().layout().sizes[0];
      Parameter& factors = add_factors(site, *linear, outputs, linear->split() == Split::column);
      scalings_.push_back(std::make_unique<Scaled>(factors, /*of_input=*/false));
      linear->attach(*scalings_.back());
    }
  }

  Ia3 options_;
  const Family& family_;
  std::vector<Site> sites_;
  std::vector<std::unique_ptr<Reparam>> scalings_;
};

google::protobuf::Any ia3_of(const ConfigReader& config) {
  Ia3 options;
  const Json* targets = config.find("target_modules");
  if (targets && targets->is_string()) {
    options.set_target_pattern(targets->get<std::string>());
  } else {
    for (const std::string& target : config.texts("target_modules")) options.add_targets(target);
  }
  for (const std::string& each : config.texts("feedforward_modules")) options.add_feed_forward(each);
  for (const std::string& each : config.texts("exclude_modules")) options.add_exclude(each);
  return packed(options);
}

}  // namespace

void register_ia3(Registry& registry) {
  registry.add<Adapter, Ia3>([](const Ia3& options, const Adapter::Context& context) {
    return std::make_unique<Scaling>(options, context.family);
  });
  registry.add_fact("IA3", PeftType{ia3_of});
}

}  // namespace echelon
