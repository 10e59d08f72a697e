#include "runtime/build.h"

#include <numeric>

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "cluster/base/error.h"
#include "cluster/base/registry.h"
#include "models/kernels/parallel.h"
#include "runtime/checkpoint/load.h"
#include "runtime/optimizers/square_sum_kernel.h"
#include "runtime/sources/token_file.pb.h"

namespace echelon {

namespace {

template <class Value>
std::optional<Value> given(bool has, Value value) {
  return has ? std::optional<Value>(value) : std::nullopt;
}

ModelShape shape_of(const ArchitectureConfig& config, const Vocabulary& vocabulary) {
  return {.layers = given(config.has_layers(), config.layers()),
          .width = given(config.has_width(), config.width()),
          .heads = given(config.has_heads(), config.heads()),
          .kv_heads = given(config.has_kv_heads(), config.kv_heads()),
          .head_width = given(config.has_head_width(), config.head_width()),
          .feed_forward = given(config.has_feed_forward(), config.feed_forward()),
          .vocabulary = config.has_vocabulary() ? config.vocabulary() : vocabulary.size,
          .positions = given(config.has_positions(), config.positions()),
          .token_types = given(config.has_token_types(), config.token_types()),
          .dropout = given(config.has_dropout(), config.dropout()),
          .attention_dropout = given(config.has_attention_dropout(), config.attention_dropout()),
          .norm_epsilon = given(config.has_norm_epsilon(), config.norm_epsilon()),
          .initializer_range = given(config.has_initializer_range(), config.initializer_range()),
          .tied = given(config.has_tied(), config.tied()),
          .rope_theta = given(config.has_rope_theta(), config.rope_theta())};
}

/// A family's defaults name the ids of its published tokenizer; the data's own are put in their place.
void set_special_ids(Json& config, const Vocabulary& vocabulary) {
  auto set = [&](const char* key, int64_t id) { config[key] = id >= 0 ? Json(id) : Json(nullptr); };
  set("pad_token_id", vocabulary.pad);
  set("bos_token_id", vocabulary.begin);
  set("eos_token_id", vocabulary.end);
}

}  // namespace

ModelOptions model_options(const Recipe& recipe) {
  switch (recipe.sharding().recompute()) {
    case SELECTIVE:
      return {.recomputed = Recomputed::cheap};
    case FULL:
      return {.recomputed = Recomputed::all};
    default:
      return {};
  }
}

ZeroOptions zero_options(const Recipe& recipe) {
  ZeroOptions options{.stage = recipe.sharding().zero(), .overlap = recipe.sharding().overlap()};
  switch (recipe.precision()) {
    case FP32:
      break;
    case FP64:
      options.values = options.master = at::kDouble;
      break;
    case BF16:
      options.values = at::kBFloat16;
      break;
    default:
      throw Error::recipe("precision", "FP16 is not available").remedy("use BF16 or FP32");
  }
  return options;
}

namespace {

std::unique_ptr<Exchange> make_exchange(const Recipe& recipe, const Registry& registry) {
  auto of_optimizer = registry.make<Optimizer>(recipe.optimizer(), {})->exchange();
  if (of_optimizer && recipe.has_exchange()) {
    throw Error::recipe("exchange", fmt::format("{} brings its own", part_name(recipe.optimizer())))
        .remedy("leave out exchange");
  }
  if (of_optimizer) return of_optimizer;
  Exchange::Context context{.seed = Seed(recipe.seed()),
                            .replicas = recipe.mesh().replicas(),
                            .steps = recipe.steps(),
                            .registry = &registry};
  return recipe.has_exchange() ? registry.make<Exchange>(recipe.exchange(), context) : exact_exchange();
}

}  // namespace

std::unique_ptr<Exchange> exchange_of(const Recipe& recipe, const Registry& registry) {
  std::unique_ptr<Exchange> exchange = make_exchange(recipe, registry);
  if (recipe.mesh().replicas() == 1 || exchange->joins_replicas()) return exchange;
  const google::protobuf::Any& part = recipe.has_exchange() ? recipe.exchange() : recipe.optimizer();
  throw Error::recipe("mesh.replicas", fmt::format("{} does not sum over replicas", part_name(part)))
      .remedy("use Exact in the gradients' own dtype, DiLoCo, or one replica");
}

ModelSource model_source(const Recipe& recipe, const Vocabulary& vocabulary) {
  const ModelConfig& model = recipe.model();
  if (model.has_load()) {
    return is_checkpoint(model.load()) ? open_checkpoint_model(model.load())
                                       : open_model(model.load(), {.language_head = true});
  }
  if (model.has_config()) return model_from_config_file(model.config(), {.language_head = true});
  Json config = config_of_shape(model.architecture().family(), shape_of(model.architecture(), vocabulary));
  set_special_ids(config, vocabulary);
  return model_from_config(config, "model.architecture");
}

void check_model(const Architecture& architecture, const Objective& objective, const Source& source) {
  if (architecture.causal != objective.causal()) {
    throw Error::recipe("objective", fmt::format("it needs a {} model, and this one is {}",
                                                 objective.causal() ? "causal" : "bidirectional",
                                                 architecture.causal ? "causal" : "bidirectional"))
        .remedy("use CausalLm with gpt2 and llama, MaskedLm with bert");
  }
  if (!architecture.head) throw Error::recipe("model", "it has no head over the vocabulary to train");
}

std::unique_ptr<AdapterSet> adapter_set(const Recipe& recipe, const ModelSource& source, const Registry& registry) {
  std::vector<AdapterSource> sources;
  for (const google::protobuf::Any& options : recipe.adapter()) sources.push_back({.options = options});
  for (const std::string& folder : recipe.model().adapter()) sources.push_back(adapter_source(folder, registry));
  for (const google::protobuf::Any& options : source.adapters)
    sources.push_back({.options = options, .loaded_with_base = true});
  return std::make_unique<AdapterSet>(registry, family_of(source), std::move(sources),
                                      std::vector<std::string>(recipe.trainable().begin(), recipe.trainable().end()));
}

void check_length(const Model& model, const Source& source) {
  int64_t most = model.architecture().max_positions - model.extra_positions();
  if (source.length() <= most) return;
  throw Error::recipe("data.train.sequence_length", fmt::format("{} tokens", source.length()))
      .expected(fmt::format("at most {}, the model's positions", most));
}

int64_t sequence_length(const Recipe& recipe) {
  TokenFile options;
  bool known = part_name(recipe.data().train()) == TokenFile::descriptor()->full_name();
  return known && options.ParseFromString(recipe.data().train().value()) ? options.sequence_length() : 0;
}

Vocabulary any_vocabulary() { return {.size = 2, .pad = 0, .begin = 0, .end = 0, .mask = 1}; }

ParameterGroups::ParameterGroups(const Recipe& recipe) {
  for (const ParameterGroup& group : recipe.parameter_group()) {
    GroupRule rule{.learning_rate_factor = group.learning_rate_factor()};
    if (group.has_weight_decay()) rule.weight_decay = group.weight_decay();
    rules_.emplace_back(Pattern(group.pattern(), "parameter_group.pattern"), rule);
  }
}

GroupRule ParameterGroups::rule_of(const std::string& parameter) const {
  for (const auto& [pattern, rule] : rules_) {
    if (pattern.matches_in(parameter)) return rule;
  }
  return {};
}

namespace {

/// Blocks of a fixed size, summed in order: the result depends on no number of threads.
template <class Real>
double square_sum_of(const at::Tensor& flat) {
  constexpr int64_t kBlock = 16384;
  const Real* x = flat.const_data_ptr<Real>();
  std::vector<double> sums((flat.numel() + kBlock - 1) / kBlock);
  for_blocks(flat.numel(), kBlock,
             [&](int64_t begin, int64_t end) { square_sum(x + begin, end - begin, &sums[begin / kBlock]); });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

template <class Real>
at::Tensor square_sum_on_gpu(const at::Tensor& flat) {
  at::Tensor sums = at::empty({kSquareSums}, flat.options().dtype(at::kDouble));
  gpu::square_sums(flat.const_data_ptr<Real>(), flat.numel(), sums.data_ptr<double>());
  return sums.sum();
}

/// A float64 on the device of `flat`, so that a GPU is not waited for.
at::Tensor square_sum_of(const at::Tensor& flat) {
  bool wide = flat.scalar_type() == at::kDouble;
  if (flat.is_cpu())
    return at::scalar_tensor(wide ? square_sum_of<double>(flat) : square_sum_of<float>(flat), at::kDouble);
  if (!kGpuKernels) return flat.to(at::kDouble).square().sum();
  return wide ? square_sum_on_gpu<double>(flat) : square_sum_on_gpu<float>(flat);
}

}  // namespace

double square_norm_of(const std::vector<Owned>& owned, const Mesh& mesh) {
  at::Tensor sum = at::zeros({}, at::kDouble);
  for (const Owned& each : owned) {
    FlatShard& shard = *each.shard;
    for (const Segment& segment : shard.segments()) {
      if (!shard.counts_on(mesh, !segment.parameter->layout().is_sharded_on("tp"))) continue;
      sum = sum.to(shard.gradient().device())
                .add_(square_sum_of(shard.gradient().narrow(0, segment.offset, segment.length)));
    }
  }
  return sum.item<double>();
}

}  // namespace echelon
