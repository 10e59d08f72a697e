// Low-rank updates of frozen matrices. Sources: Hu et al. 2021 (LoRA), Kalajdzievski 2023 (rsLoRA), Liu et al. 2024
// (DoRA), Meng et al. 2024 (PiSSA), Büyükakyüz 2024 (OLoRA).
#include <cmath>
#include <limits>
#include <map>
#include <optional>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/pattern.h"
#include "cluster/base/registry.h"
#include "models/adapter.h"
#include "models/adapters/lora.pb.h"
#include "models/kernels/ordered_product.h"
#include "models/layers/low_rank.h"

namespace echelon {

namespace {

class LowRank : public Adapter {
 public:
  LowRank(const Lora& options, const Family& family) : options_(options), family_(family) {
    check_options();
    for (const Lora::Override& each : options_.override())
      overridden_.emplace_back("(.*\\.)?(" + each.pattern() + ")", "adapter.Lora.override.pattern");
  }

  void attach(Model& model) override {
    for (TargetModule& module : target_modules(model, family_, choice())) {
      Site site{.module = std::move(module)};
      site.rank = rank_of(site.module.name);
      site.scale =
          alpha_of(site.module.name) / (options_.rslora() ? std::sqrt(site.rank) : static_cast<double>(site.rank));
      check_rank(site);
      sites_.push_back(std::move(site));
    }
    for (Site& site : sites_) site.module.embedding ? attach_embedding(site) : attach_linears(site);
  }

  WholeTensors derive_values(Model& model) override;
  std::vector<MergeRule> merge_rules(const WholeTensors& own) const override;
  Json peft_config() const override;
  std::vector<AdapterTensor> peft_tensors() const override;

 private:
  struct Site {
    TargetModule module;
    int64_t rank = 0;
    double scale = 1;
    std::string a, b;                       ///< names; b of an embedding
    std::vector<const Parameter*> linears;  ///< their b, in the order of the module's linears
  };

  bool starts_from_base() const { return options_.init() == Lora::PISSA || options_.init() == Lora::OLORA; }
  void check_options() const;
  void check_rank(const Site& site) const;
  TargetChoice choice() const;
  const Lora::Override* override_of(const std::string& module, bool (Lora::Override::*says)() const) const;
  int64_t rank_of(const std::string& module) const;
  double alpha_of(const std::string& module) const;
  std::string tensor(const std::string& where, const char* what) const {
    return fmt::format("adapters.{}.{}.{}", options_.name(), where, what);
  }
  Init start_of_a(int64_t inputs, int64_t rank) const;
  void attach_embedding(Site& site);
  void attach_linears(Site& site);
  LowRankFactors factors_of(const Site& site, Linear& linear, Parameter& a, Parameter* first_a) const;
  std::pair<at::Tensor, at::Tensor> factorised(const at::Tensor& weight, const Site& site) const;
  void derive_for(const Site& site, const at::Tensor& weight, int owner, const Group& world,
                  WholeTensors& values) const;

  Lora options_;
  std::vector<Pattern> overridden_;  ///< of options_.override()
  const Family& family_;
  std::vector<Site> sites_;
  std::vector<std::unique_ptr<LowRankLinear>> linears_;
  std::vector<std::unique_ptr<LowRankEmbedding>> embeddings_;
};

void LowRank::check_options() const {
  auto refuse = [](const char* field, const char* what) {
    throw Error::recipe(std::string("adapter.Lora.") + field, what);
  };
  if (options_.dropout() < 0 || options_.dropout() >= 1) refuse("dropout", "must be at least 0 and below 1");
  if (options_.has_alpha() && !(options_.alpha() > 0)) refuse("alpha", "must be above 0");
  if (!options_.target_pattern().empty() && options_.targets_size() > 0)
    refuse("target_pattern", "stands beside targets; give one of them");
}

void LowRank::check_rank(const Site& site) const {
  int64_t most = std::min(site.module.inputs(), site.module.outputs());
  if (site.rank >= 1 && site.rank <= most) return;
  throw Error::recipe("adapter.Lora.rank", fmt::format("{} does not suit {}", site.rank, site.module.name))
      .expected(fmt::format("1 to {}", most));
}

TargetChoice LowRank::choice() const {
  TargetChoice choice{.targets = {options_.targets().begin(), options_.targets().end()},
                      .excluded = {options_.exclude().begin(), options_.exclude().end()},
                      .pattern = options_.target_pattern(),
                      .layers = {options_.layers().begin(), options_.layers().end()}};
  if (choice.targets.empty() && choice.pattern.empty()) choice.targets = family_.lora_targets;
  return choice;
}

const Lora::Override* LowRank::override_of(const std::string& module, bool (Lora::Override::*says)() const) const {
  for (int i = 0; i < options_.override_size(); ++i) {
    const Lora::Override& each = options_.override(i);
    if ((each.*says)() && overridden_[i].matches_whole(module)) return &each;
  }
  return nullptr;
}

int64_t LowRank::rank_of(const std::string& module) const {
  const Lora::Override* other = override_of(module, &Lora::Override::has_rank);
  return other ? other->rank() : options_.rank();
}

double LowRank::alpha_of(const std::string& module) const {
  const Lora::Override* other = override_of(module, &Lora::Override::has_alpha);
  if (other) return other->alpha();
  return options_.has_alpha() ? options_.alpha() : static_cast<double>(rank_of(module));
}

Init LowRank::start_of_a(int64_t inputs, int64_t rank) const {
  switch (options_.init()) {
    case Lora::GAUSSIAN:
      return {.standard_deviation = 1.0 / static_cast<double>(rank)};
    case Lora::KAIMING:
      return {.bound = 1.0 / std::sqrt(static_cast<double>(inputs))};
    default:
      return {};  // derived from the base
  }
}

void LowRank::attach_embedding(Site& site) {
  if (options_.dora() || starts_from_base()) {
    throw Error::recipe(
        "adapter.Lora.targets",
        fmt::format("{} is an embedding, which has no DoRA and no PiSSA or OLoRA start", site.module.name));
  }
  Embedding& embedding = *site.module.embedding;
  const Layout& table = embedding.weight().layout();
  site.a = tensor(embedding.name(), "lora_embedding_A");
  site.b = tensor(embedding.name(), "lora_embedding_B");
  Parameter& a = embedding.unit().add(site.a, {{table.sizes[0], site.rank}, table.shards}, {});
  Parameter& b =
      embedding.unit().add(site.b, Layout::replicated({table.sizes[1], site.rank}), {.standard_deviation = 1});
  embeddings_.push_back(std::make_unique<LowRankEmbedding>(a, b, site.scale));
  embedding.attach(*embeddings_.back());
}

void LowRank::attach_linears(Site& site) {
  Linear& first = *site.module.linears.front();
  int64_t inputs = site.module.inputs();
  Layout layout = first.split() == Split::row ? Layout::sharded({site.rank, inputs}, 1, "tp")
                                              : Layout::replicated({site.rank, inputs});
  site.a = tensor(first.name(), "lora_A");
  Parameter& a = first.unit().add(site.a, layout, start_of_a(inputs, site.rank));
  Parameter* first_a = nullptr;
  if (starts_from_base()) first.unit().freeze(*(first_a = &first.unit().add(site.a + "_start", layout, {})));
  for (Linear* linear : site.module.linears) {
    LowRankFactors factors = factors_of(site, *linear, a, first_a);
    site.linears.push_back(factors.b);
    linears_.push_back(std::make_unique<LowRankLinear>(*linear, factors, site.scale, options_.dropout()));
    linear->attach(*linears_.back());
  }
}

LowRankFactors LowRank::factors_of(const Site& site, Linear& linear, Parameter& a, Parameter* first_a) const {
  int64_t outputs = linear.weight().layout().sizes[0];
  auto layout = [&](std::vector<int64_t> sizes) {
    return linear.split() == Split::column ? Layout::sharded(std::move(sizes), 0, "tp")
                                           : Layout::replicated(std::move(sizes));
  };
  LowRankFactors factors{.a = &a,
                  .b = &linear.unit().add(tensor(linear.name(), "lora_B"), layout({outputs, site.rank}), {}),
                  .first_a = first_a};
  if (first_a) {
    Parameter& first_b = linear.unit().add(factors.b->name() + "_start", layout({outputs, site.rank}), {});
    linear.unit().freeze(first_b);
    factors.first_b = &first_b;
  }
  if (options_.dora())
    factors.magnitude =
        &linear.unit().add(tensor(linear.name(), "lora_magnitude_vector"), layout({outputs}), {.constant = 1});
  return factors;
}

/// Calls `visit` with each site and its module's whole weight [out, in], linears one below the other.
template <class Sites, class Visit>
void visit_weights(Model& model, const Sites& sites, const Visit& visit) {
  std::map<std::string, std::pair<size_t, size_t>> place;  // of a weight: site, and which of its linears
  std::vector<std::vector<at::Tensor>> parts(sites.size());
  for (size_t site = 0; site < sites.size(); ++site) {
    const auto& linears = sites[site].module.linears;
    for (size_t i = 0; i < linears.size(); ++i) place[linears[i]->weight().name()] = {site, i};
  }
  model.weights().visit_whole([](FlatShard& shard) { return shard.master(); },
                              [&](const Parameter& parameter, const at::Tensor& whole) {
                                auto found = place.find(parameter.name());
                                if (found == place.end()) return;
                                auto& weights = parts[found->second.first];
                                weights.push_back(whole.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true));
                                if (weights.size() < sites[found->second.first].module.linears.size()) return;
                                visit(found->second.first, at::cat(weights, 0));
                                weights.clear();
                              });
}

std::pair<at::Tensor, at::Tensor> LowRank::factorised(const at::Tensor& weight, const Site& site) const {
  if (options_.init() == Lora::OLORA) {
    auto [q, r] = at::linalg_qr(weight);
    return {r.narrow(0, 0, site.rank).contiguous(), q.narrow(1, 0, site.rank).contiguous()};
  }
  auto [u, s, v] = at::linalg_svd(weight, /*full_matrices=*/false);
  at::Tensor left = u.narrow(1, 0, site.rank), right = v.narrow(0, 0, site.rank);
  // A pair of singular vectors may change sign together: the largest entry of the left one is made positive.
  at::Tensor sign = left.gather(0, left.abs().argmax(0, /*keepdim=*/true)).sign();
  at::Tensor root = (s.narrow(0, 0, site.rank) / site.scale).sqrt();
  return {(right * (root * sign.squeeze(0)).unsqueeze(1)).contiguous(), (left * (root * sign.squeeze(0))).contiguous()};
}

void LowRank::derive_for(const Site& site, const at::Tensor& weight, int owner, const Group& world,
                         WholeTensors& values) const {
  if (starts_from_base()) {
    // One rank factorises, so that all hold the same bits.
    auto [a, b] = world.rank() == owner ? factorised(weight, site)
                                        : std::pair{at::empty({site.rank, weight.size(1)}, at::kDouble),
                                                    at::empty({weight.size(0), site.rank}, at::kDouble)};
    for (at::Tensor* factor : {&a, &b}) world.broadcast(*factor, owner, {.name = site.a}).wait();
    values[site.a] = values[site.a + "_start"] = a;
    int64_t row = 0;
    for (const Parameter* each : site.linears) {
      int64_t rows = each->layout().sizes[0];
      values[each->name()] = values[each->name() + "_start"] = b.narrow(0, row, rows);
      row += rows;
    }
  }
  if (!options_.dora()) return;
  int64_t row = 0;
  for (const Linear* linear : site.module.linears) {
    int64_t rows = linear->weight().layout().sizes[0];
    values[tensor(linear->name(), "lora_magnitude_vector")] = weight.narrow(0, row, rows).square().sum(1).sqrt();
    row += rows;
  }
}

WholeTensors LowRank::derive_values(Model& model) {
  WholeTensors values;
  if (!starts_from_base() && !options_.dora()) return values;
  const Group& world = model.weights().units.front()->zero().mesh.world();
  visit_weights(model, sites_, [&](size_t site, const at::Tensor& weight) {
    derive_for(sites_[site], weight, static_cast<int>(site) % world.size(), world, values);
  });
  return values;
}

/// scale left[rows] right[:, columns] of the part of a matrix that is asked for.
std::function<at::Tensor(const Slice&)> product_of(const at::Tensor& left, const at::Tensor& right, double scale) {
  return [=](const Slice& part) {
    return ordered_product(left.narrow(0, part.offsets[0], part.sizes[0]),
                           right.narrow(1, part.offsets[1], part.sizes[1])) *
           scale;
  };
}

std::vector<MergeRule> LowRank::merge_rules(const WholeTensors& own) const {
  std::vector<MergeRule> rules;
  // What starts from the base is folded in as plain LoRA of twice the rank, as it is written out.
  auto with_start = [&](const std::string& name, int dim, double sign) {
    auto start = own.find(name + "_start");
    return start == own.end() ? own.at(name) : at::cat({own.at(name), start->second * sign}, dim);
  };
  for (const Site& site : sites_) {
    if (site.module.embedding) {
      rules.push_back({.parameter = site.module.embedding->weight().name(),
                       .shift = product_of(own.at(site.a), own.at(site.b).t(), site.scale)});
      continue;
    }
    at::Tensor a = with_start(site.a, 0, 1);
    for (size_t i = 0; i < site.linears.size(); ++i) {
      MergeRule rule{.parameter = site.module.linears[i]->weight().name(),
                     .shift = product_of(with_start(site.linears[i]->name(), 1, -1), a, site.scale)};
      if (options_.dora())
        rule.row_lengths =
            own.at(tensor(site.module.linears[i]->name(), "lora_magnitude_vector")).to(at::kDouble).unsqueeze(1);
      rules.push_back(std::move(rule));
    }
  }
  return rules;
}

Json LowRank::peft_config() const {
  std::vector<std::string> targets;
  Json ranks = Json::object(), alphas = Json::object();
  // What starts from the base is written as plain LoRA of twice the rank: s B A - s B₀ A₀.
  int64_t times = starts_from_base() ? 2 : 1;
  double alpha_times = options_.rslora() ? std::sqrt(times) : static_cast<double>(times);
  bool turned = false;
  for (const Site& site : sites_) {
    targets.push_back(site.module.name);
    turned = turned || site.module.transposed;
    if (rank_of(site.module.name) != options_.rank()) ranks[site.module.name] = times * site.rank;
    double alpha = alpha_of(site.module.name),
           usual = options_.has_alpha() ? options_.alpha() : static_cast<double>(options_.rank());
    if (alpha != usual) alphas[site.module.name] = alpha_times * alpha;
  }
  double alpha = alpha_times * (options_.has_alpha() ? options_.alpha() : static_cast<double>(options_.rank()));
  return {{"peft_type", "LORA"},
          {"r", times * options_.rank()},
          {"lora_alpha", alpha},
          {"lora_dropout", options_.dropout()},
          {"target_modules", targets},
          {"fan_in_fan_out", turned},
          {"bias", "none"},
          {"use_rslora", options_.rslora()},
          {"use_dora", options_.dora()},
          {"init_lora_weights", true},
          {"rank_pattern", ranks},
          {"alpha_pattern", alphas}};
}

std::vector<AdapterTensor> LowRank::peft_tensors() const {
  std::vector<AdapterTensor> all;
  for (const Site& site : sites_) {
    const std::string& name = site.module.name;
    int64_t inputs = site.module.inputs(), outputs = site.module.outputs();
    if (site.module.embedding) {
      all.push_back(
          {.key = name + ".lora_embedding_A", .parts = {{site.a, /*transposed=*/true}}, .shape = {site.rank, inputs}});
      all.push_back({.key = name + ".lora_embedding_B", .parts = {{site.b}}, .shape = {outputs, site.rank}});
      continue;
    }
    int64_t times = starts_from_base() ? 2 : 1;
    AdapterTensor a{.key = name + ".lora_A.weight", .parts = {{site.a}}, .shape = {times * site.rank, inputs}};
    AdapterTensor b{.key = name + ".lora_B.weight", .columns = times, .shape = {outputs, times * site.rank}};
    AdapterTensor magnitude{.key = name + ".lora_magnitude_vector", .shape = {outputs}};
    if (starts_from_base()) a.parts.push_back({site.a + "_start"});
    for (size_t i = 0; i < site.linears.size(); ++i) {
      b.parts.push_back({site.linears[i]->name()});
      if (starts_from_base()) b.parts.push_back({site.linears[i]->name() + "_start", false, -1});
      magnitude.parts.push_back({tensor(site.module.linears[i]->name(), "lora_magnitude_vector")});
    }
    all.push_back(std::move(a));
    all.push_back(std::move(b));
    if (options_.dora()) all.push_back(std::move(magnitude));
  }
  return all;
}

constexpr int64_t kLargestRank = std::numeric_limits<int32_t>::max();
constexpr double kSmallestAlpha = 1e-12, kLargestAlpha = 1e12;
constexpr size_t kMostOverrides = 10'000;

/// Lets `set` read each value of the object `key` into the override of that pattern.
template <class Set>
void add_overrides(const ConfigReader& config, const char* key, Lora& options, const Set& set) {
  const Json* object = config.object(key);
  if (!object) return;
  if (object->size() > kMostOverrides)
    throw config.mistake(key, "too many patterns")
        .got(object->size())
        .expected(fmt::format("at most {}", kMostOverrides));
  std::map<std::string, Lora::Override*> known;
  for (Lora::Override& each : *options.mutable_override()) known.emplace(each.pattern(), &each);
  for (const auto& [pattern, value] : object->items()) {
    Lora::Override*& found = known[pattern];
    if (!found) (found = options.add_override())->set_pattern(pattern);
    try {
      set(*found, *object, pattern);
    } catch (Error& error) {
      throw error.within(config.mistake(key, "").place());
    }
  }
}

google::protobuf::Any lora_of(const ConfigReader& config) {
  Lora options;
  options.set_rank(config.size("r", 8));
  options.set_alpha(config.number("lora_alpha", kSmallestAlpha, kLargestAlpha, 8));
  options.set_dropout(config.rate("lora_dropout", 0));
  options.set_rslora(config.flag("use_rslora", false));
  options.set_dora(config.flag("use_dora", false));
  for (const char* key :
       {"lora_bias", "layer_replication", "target_parameters", "trainable_token_indices", "use_qalora"})
    config.refuse(key);
  std::string bias = config.text("bias", "none");  // biases that were trained, too, are among the folder's tensors
  if (bias != "none" && bias != "all" && bias != "lora_only") throw config.mistake("bias", "unknown value").got(bias);
  const Json* targets = config.find("target_modules");
  if (targets && targets->is_string() && *targets != "all-linear") {
    options.set_target_pattern(targets->get<std::string>());
  } else if (targets && targets->is_string()) {
    options.add_targets("all-linear");
  } else {
    for (const std::string& target : config.texts("target_modules")) options.add_targets(target);
  }
  for (const std::string& excluded : config.texts("exclude_modules")) options.add_exclude(excluded);
  for (int64_t layer : config.sizes("layers_to_transform")) options.add_layers(layer);
  add_overrides(config, "rank_pattern", options,
                [](Lora::Override& to, const Json& object, const std::string& pattern) {
                  to.set_rank(json_integer(object, pattern, "", 1, kLargestRank));
                });
  add_overrides(config, "alpha_pattern", options,
                [](Lora::Override& to, const Json& object, const std::string& pattern) {
                  to.set_alpha(json_number(object, pattern, "", kSmallestAlpha, kLargestAlpha));
                });
  return packed(options);
}

}  // namespace

void register_lora(Registry& registry) {
  registry.add<Adapter, Lora>([](const Lora& options, const Adapter::Context& context) {
    return std::make_unique<LowRank>(options, context.family);
  });
  registry.add_fact("LORA", PeftType{lora_of});
}

}  // namespace echelon
