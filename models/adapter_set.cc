#include "models/adapter_set.h"

#include <algorithm>
#include <set>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "cluster/base/pattern.h"
#include "comm/together.h"
#include "models/interchange/base_hash.h"
#include "models/interchange/stored_form.h"
#include "models/merged_shards.h"

namespace echelon {

namespace {

/// The `name` of a Part's options.
std::string name_in(const google::protobuf::Any& options) {
  const auto* descriptor =
      google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(part_name(options));
  std::unique_ptr<google::protobuf::Message> message(
      google::protobuf::MessageFactory::generated_factory()->GetPrototype(descriptor)->New());
  message->ParseFromString(options.value());
  return message->GetReflection()->GetString(*message, descriptor->FindFieldByName("name"));
}

bool everything(const Parameter&) { return true; }

bool is_own(const Parameter& parameter) { return !parameter.name().starts_with("adapters."); }

/// A folder of a model, not a checkpoint of a run.
bool is_model_folder(const std::string& path) { return !path.empty() && exists(join_path(path, "config.json")); }

/// What every adapter_config.json says.
Json common_config(const Family& family, const Architecture& architecture, const std::string& base) {
  Json config{
      {"base_model_name_or_path", base}, {"revision", nullptr}, {"inference_mode", true}, {"auto_mapping", nullptr}};
  config["task_type"] = family.is_generative() && architecture.head ? "CAUSAL_LM" : "FEATURE_EXTRACTION";
  return config;
}

std::string module_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

/// The modules of which every tensor of `all` is in `beside`, as PEFT names what is trained in full; null: none.
Json whole_modules(const std::vector<AdapterTensor>& all, const std::vector<AdapterTensor>& beside) {
  std::set<std::string> trained, modules;
  for (const AdapterTensor& tensor : beside) trained.insert(tensor.key);
  for (const AdapterTensor& tensor : beside) {
    std::string module = module_of(tensor.key);
    bool whole = std::all_of(all.begin(), all.end(), [&](const AdapterTensor& each) {
      return !each.key.starts_with(module + ".") || trained.contains(each.key);
    });
    if (whole) modules.insert(module);
  }
  return modules.empty() ? Json(nullptr) : Json(modules);
}

}  // namespace

AdapterSource adapter_source(const std::string& path, const Registry& registry) {
  return adapter_source(PeftFolder::open(path), registry);
}

AdapterSource adapter_source(PeftFolder given, const Registry& registry) {
  auto folder = std::make_shared<PeftFolder>(std::move(given));
  std::string type = folder->config().text("peft_type", "");
  const PeftType* known = registry.find_fact<PeftType>(type);
  if (!known) {
    throw folder->config()
        .mistake("peft_type", "method is not implemented")
        .got(type)
        .expected(fmt::format("{}", fmt::join(registry.fact_names<PeftType>(), ", ")));
  }
  google::protobuf::Any options = known->options(folder->config());
  return {options, std::move(folder)};
}

AdapterSet::AdapterSet(const Registry& registry, const Family& family, std::vector<AdapterSource> sources,
                       std::vector<std::string> trainable)
    : family_(family), trainable_(std::move(trainable)) {
  std::set<std::string> names;
  for (AdapterSource& source : sources) {
    Member member{nullptr, name_in(source.options), std::move(source.folder), source.loaded_with_base};
    blaming_folder(member, [&] { member.adapter = registry.make<Adapter>(source.options, {family}); });
    if (!names.insert(member.name).second) {
      throw Error::recipe("adapter", fmt::format("two adapters are named \"{}\"", member.name))
          .remedy("give each a name of its own");
    }
    adapters_.push_back(std::move(member));
  }
}

void AdapterSet::attach(Model& model) {
  if (adapters_.empty() && trainable_.empty()) return;
  // Tensors of the base that come with an adapter learn with it. PEFT also stores the table of an adapted embedding as
  // it was.
  std::set<std::string> stored;
  Architecture with_copies = model.architecture();  // PEFT stores both names of a tied tensor
  with_copies.tied = false;
  for (Member& member : adapters_) {
    if (!member.folder) continue;
    member.beside = member.folder->among(stored_beside(model, with_copies, everything));
    for (const AdapterTensor& tensor : member.beside) {
      if (tensor.key.ends_with(".base_layer.weight")) continue;
      for (const AdapterTensor::Part& part : tensor.parts) stored.insert(part.parameter);
    }
  }
  std::vector<Pattern> patterns;
  for (const std::string& pattern : trainable_) patterns.emplace_back(pattern, "trainable");
  std::vector<bool> used(patterns.size());
  model.freeze([&](const Parameter& parameter) {
    bool learns = stored.contains(parameter.name());
    for (size_t i = 0; i < patterns.size(); ++i) {
      if (!patterns[i].matches_in(parameter.name())) continue;
      learns = used[i] = true;
    }
    return learns;
  });
  auto unused = std::find(used.begin(), used.end(), false);
  if (unused != used.end()) {
    throw Error::recipe("trainable",
                        fmt::format("\"{}\" matches no tensor of the model", trainable_[unused - used.begin()]))
        .remedy("`echelon describe` explains how tensors are named");
  }
  for (Member& member : adapters_) blaming_folder(member, [&] { member.adapter->attach(model); });
}

void AdapterSet::blaming_folder(const Member& member, const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    // What no recipe says is the folder's fault.
    if (!member.folder || error.kind() != Error::Kind::recipe) throw;
    throw Error::input(member.folder->path(), fmt::format("does not fit the model: {}", error.what()));
  }
}

void AdapterSet::load(Model& model) {
  for (Member& member : adapters_) {
    if (member.folder) {
      std::vector<AdapterTensor> tensors = member.adapter->peft_tensors();
      tensors.insert(tensors.end(), member.beside.begin(), member.beside.end());
      model.weights().assign(member.folder->read(tensors, model.weights()));
      continue;
    }
    WholeTensors values = member.adapter->derive_values(model);
    if (member.loaded_with_base) {
      std::erase_if(values, [&](const auto& each) { return model.weights().at(each.first).trained(); });
    }
    model.weights().assign(values);
  }
}

void AdapterSet::refuse_trained_base() const {
  for (const Member& member : adapters_) {
    for (const AdapterTensor& tensor : member.beside) {
      if (tensor.key.ends_with(".base_layer.weight"))
        continue;  // PEFT stores the table of an adapted embedding as it was
      throw Error::input(
          member.folder->path(),
          fmt::format("holds \"{}\", a tensor of the base trained in full, which cannot be folded in", tensor.key));
    }
  }
}

std::vector<MergeRule> AdapterSet::stored_merge_rules(const Model& model) const {
  return merge_rules(model, [&](const Member& member) {
    std::vector<AdapterTensor> tensors = member.adapter->peft_tensors();
    tensors.insert(tensors.end(), member.beside.begin(), member.beside.end());
    return member.folder->read(tensors, model.weights());
  });
}

std::vector<MergeRule> AdapterSet::merge_rules(const Model& model) const {
  WholeTensors own;
  auto holds_own = [](FlatShard& shard) {
    bool any = std::any_of(shard.parameters().begin(), shard.parameters().end(),
                           [](const Parameter* parameter) { return !is_own(*parameter); });
    return any ? shard.master() : at::Tensor();
  };
  model.weights().visit_whole(holds_own, [&](const Parameter& parameter, const at::Tensor& whole) {
    if (!is_own(parameter)) own[parameter.name()] = whole.cpu().clone();
  });
  return merge_rules(model, [&](const Member&) { return own; });
}

std::vector<MergeRule> AdapterSet::merge_rules(const Model& model,
                                               const std::function<WholeTensors(const Member&)>& values_of) const {
  const Architecture& a = model.architecture();
  std::vector<MergeRule> all;
  for (const Member& member : adapters_) {
    for (MergeRule& rule : member.adapter->merge_rules(values_of(member))) all.push_back(std::move(rule));
  }
  for (const MergeRule& rule : all) {
    if (!a.tied || !a.head || rule.parameter != model.token_embedding().weight().name()) continue;
    throw Error::input("adapter",
                       "changes the embedding, which the head shares: folded in, it would change the head, too");
  }
  return all;
}

void AdapterSet::fold_into(Model& model) const {
  MergedShards(model.weights(), /*undoable=*/false).merge(merge_rules(model));
  for (Linear* linear : model.linears()) linear->detach_all();
  model.token_embedding().detach_all();
  for (FlatShard* shard : model.weights().shards()) {
    if (std::none_of(shard->parameters().begin(), shard->parameters().end(),
                     [](const Parameter* parameter) { return is_own(*parameter); }))
      shard->leave_out();
  }
}

void AdapterSet::start_anew(Model& model, const Seed& seed) const {
  DrawnTensors draw(model.weights(), seed);
  WholeTensors values;
  for (const Parameter* parameter : model.weights().parameters()) {
    if (!is_own(*parameter))
      values[parameter->name()] = draw.read(parameter->name(), Slice::whole(parameter->layout().sizes));
  }
  for (const Member& member : adapters_) {
    for (const auto& [name, value] : member.adapter->derive_values(model)) values[name] = value;
  }
  model.weights().assign(values);
}

std::vector<AdapterTensor> AdapterSet::stored_beside(const Model& model, const Architecture& architecture,
                                                     const std::function<bool(const Parameter&)>& chooses) const {
  StoredForm form(family_, architecture);
  std::map<std::string, std::vector<std::pair<TensorPlace, const Parameter*>>> by_stored_name;
  for (const Parameter* parameter : model.weights().parameters()) {
    if (!is_own(*parameter) || !chooses(*parameter)) continue;
    for (const TensorPlace& place : form.places(parameter->name()))
      by_stored_name[place.name].push_back({place, parameter});
  }
  std::vector<AdapterTensor> all;
  for (auto& [name, pieces] : by_stored_name) {
    TensorPlace place = pieces.front().first;
    if (static_cast<int>(pieces.size()) != place.parts) {
      throw Error::recipe("trainable", fmt::format("trains a part of {}, which can only be stored whole", name))
          .remedy("choose a pattern that matches all of query, key and value");
    }
    std::sort(pieces.begin(), pieces.end(), [](const auto& a, const auto& b) { return a.first.part < b.first.part; });
    AdapterTensor tensor{
        .key = name, .columns = place.parts, .shape = place.stored_sizes(pieces.front().second->layout().sizes)};
    for (const auto& [each, parameter] : pieces) tensor.parts.push_back({parameter->name(), each.transposed});
    all.push_back(std::move(tensor));
  }
  return all;
}

void AdapterSet::write(const std::string& folder, Model& model, const std::string& base) const {
  WholeTensors values;
  auto adapts = [](const Parameter* parameter) { return parameter->trained() || !is_own(*parameter); };
  auto masters = [&](FlatShard& shard) {
    bool any = std::any_of(shard.parameters().begin(), shard.parameters().end(), adapts);
    return any ? shard.master() : at::Tensor();
  };
  model.weights().visit_whole(masters, [&](const Parameter& parameter, const at::Tensor& whole) {
    if (adapts(&parameter)) values[parameter.name()] = whole.cpu().clone();
  });
  const Group& world = model.weights().units.front()->zero().mesh.world();
  std::vector<AdapterTensor> beside =
      stored_beside(model, model.architecture(), [](const Parameter& parameter) { return parameter.trained(); });
  std::string hash =
      on_first_rank(world, base, [&] { return is_model_folder(base) ? hash_of_model(base) : std::string(); });
  for (const Member& member : adapters_) {
    Json config = common_config(family_, model.architecture(), base);
    if (!hash.empty()) config["echelon_base_hash"] = hash;
    config.update(member.adapter->peft_config());
    member.adapter->complete(values);
    config["modules_to_save"] = whole_modules(stored_beside(model, model.architecture(), everything), beside);
    std::vector<AdapterTensor> tensors = member.adapter->peft_tensors();
    std::set<std::string> wrapped;  // modules, as PEFT names them
    for (const AdapterTensor& tensor : tensors)
      wrapped.insert(tensor.key.substr(0, std::min(tensor.key.find(".lora_"), tensor.key.find(".ia3_"))));
    for (AdapterTensor tensor : beside) {
      if (wrapped.contains(module_of(tensor.key))) tensor.key.insert(tensor.key.rfind('.'), ".base_layer");
      tensors.push_back(std::move(tensor));
    }
    write_peft_folder(adapters_.size() == 1 ? folder : join_path(folder, member.name), config, tensors, values, world);
  }
}

}  // namespace echelon
