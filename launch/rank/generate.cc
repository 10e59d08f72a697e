#include "launch/rank/generate.h"

#include <algorithm>
#include <cstdio>

#include <ATen/ATen.h>

#include "cluster/base/files.h"
#include "cluster/base/log.h"
#include "comm/together.h"
#include "launch/rank/commands.h"
#include "launch/rank/loaded_model.h"
#include "launch/rank/text_tool.h"

namespace echelon {

namespace {

KeyValueCache empty_cache(const Architecture& a, const Zero& zero, int64_t positions) {
  int64_t kv_heads = a.kv_heads / zero.mesh.tp().size();
  return {.memory = at::empty({a.layers, 2, 1, kv_heads, positions, a.head_width}, zero.options.values)};
}

/// Rank 0's choice: the ranks must not part over a rounding.
int64_t agreed(int64_t token, const Group& world) {
  at::Tensor shared = at::full({1}, token, at::kLong);
  world.broadcast(shared, 0, {.name = "next token"}).wait();
  return shared.item<int64_t>();
}

std::vector<int64_t> read_ends(const Json& config, const std::string& place) {
  auto found = config.find("eos_token_id");
  if (found == config.end() || found->is_null()) return {};
  if (found->is_number_integer()) return {found->get<int64_t>()};
  std::vector<int64_t> ids;
  for (const Json& id : *found) {
    if (!id.is_number_integer())
      throw Error::input(place + ": eos_token_id", "wrong type").expected("an id or a list of ids");
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

/// generation_config.json goes before config.json, as in transformers.
std::vector<int64_t> end_ids(const std::string& folder, const Json& config) {
  std::string path = join_path(folder, "generation_config.json");
  if (!exists(path)) return read_ends(config, "config.json");
  return read_ends(parse_json(read_file(path, Error::Kind::input, 1 << 20), path), path);
}

void check_prompt(const std::vector<int64_t>& prompt, const Architecture& a) {
  if (prompt.empty()) throw Error::input("prompt", "is empty").expected("at least one token");
  for (int64_t id : prompt) {
    if (id < 0 || id >= a.vocabulary)
      throw Error::input("prompt", "id out of range").got(id).expected(fmt::format("0 to {}", a.vocabulary - 1));
  }
  if (static_cast<int64_t>(prompt.size()) >= a.max_positions) {
    throw Error::input("prompt", "leaves no room to continue")
        .got(prompt.size())
        .expected(fmt::format("fewer than the model's {} positions", a.max_positions));
  }
}

std::vector<int64_t> prompt_of(const GenerateArguments& arguments, const ModelSource& source, const Group& world) {
  if (arguments.prompt_ids) return *arguments.prompt_ids;
  if (source.tokenizer_folder.empty()) {
    throw Error::input(arguments.model, "has no tokenizer").remedy("give the prompt as --prompt_ids");
  }
  return parse_ids(
      on_first_rank(world, "prompt", [&] { return encode_text(source.tokenizer_folder, arguments.prompt); }));
}

}  // namespace

int64_t choose(const at::Tensor& logits, double temperature, double top_p, double uniform) {
  if (temperature == 0) return logits.argmax().item<int64_t>();
  at::Tensor probabilities = at::softmax(logits.to(at::kDouble) / temperature, 0);
  auto [sorted, order] = probabilities.sort(/*stable=*/true, 0, /*descending=*/true);
  at::Tensor sums = sorted.cumsum(0);
  // The token that crosses top_p is still in: the first is, whatever top_p.
  int64_t kept = std::min<int64_t>(sums.lt(top_p).sum().item<int64_t>() + 1, sums.numel());
  double threshold = uniform * sums[kept - 1].item<double>();
  int64_t drawn = std::min(sums.le(threshold).sum().item<int64_t>(), kept - 1);
  return order[drawn].item<int64_t>();
}

std::vector<int64_t> generate(Model& model, const Mesh& mesh, const std::vector<int64_t>& prompt,
                              const SamplingOptions& options) {
  int64_t wanted = static_cast<int64_t>(prompt.size()) + options.max_new_tokens;
  int64_t end = std::min(wanted, model.architecture().max_positions - model.extra_positions());
  if (end < wanted && mesh.world().rank() == 0) EC_LOG(warning, "text ends at the model's {} positions", end);
  KeyValueCache cache =
      empty_cache(model.architecture(), model.weights().units.front()->zero(), end + model.extra_positions());
  Seed seed = Seed(options.seed).with("generate");
  std::vector<int64_t> ids = prompt, fresh = prompt;
  while (static_cast<int64_t>(ids.size()) < end) {
    Batch batch{.tensors = {{"input_ids", at::tensor(fresh, at::kLong).view({1, -1})}}, .samples = {0}};
    Pass pass = model.pass(batch, seed, /*training=*/false, &cache, static_cast<int64_t>(ids.size() - fresh.size()));
    at::Tensor logits = model.forward(batch, pass).logits.select(0, 0).select(0, -1);
    int64_t token = choose(logits, options.temperature, options.top_p, seed.uniform(ids.size()));
    fresh = {agreed(token, mesh.world())};
    ids.push_back(fresh.front());
    if (std::find(options.ends.begin(), options.ends.end(), fresh.front()) != options.ends.end()) break;
  }
  return ids;
}

int run_generate(const CommandLine& line, Session& session) {
  GenerateArguments arguments = generate_arguments(line);
  const Group& world = session.world();
  ModelSource source = open_folder_or_checkpoint(arguments.model);
  if (!source.architecture.causal || !source.architecture.head) {
    throw Error::input(arguments.model, "is no language model that continues text")
        .expected("GPT2LMHeadModel or LlamaForCausalLM");
  }
  std::vector<int64_t> prompt = prompt_of(arguments, source, world);
  check_prompt(prompt, source.architecture);
  SamplingOptions options{.max_new_tokens = arguments.max_new_tokens,
                          .temperature = arguments.temperature,
                          .top_p = arguments.top_p,
                          .seed = arguments.seed,
                          .ends = end_ids(arguments.model, source.config)};
  Recipe layout;
  layout.set_precision(arguments.precision);
  LoadedModel loaded(std::move(source), world, layout, arguments.adapter);
  if (arguments.merge_adapters) merge_adapters(loaded.model, *loaded.adapters, arguments.model, arguments.adapter);
  std::vector<int64_t> ids = generate(loaded.model, loaded.mesh, prompt, options);
  if (world.rank() != 0) return 0;
  std::string text = fmt::format("{}", fmt::join(ids, ","));
  fmt::print("{}\n", arguments.prompt_ids ? text : decode_ids(loaded.source.tokenizer_folder, text));
  return 0;
}

}  // namespace echelon
