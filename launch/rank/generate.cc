#include "launch/rank/generate.h"

#include <algorithm>
#include <cstdio>
#include <sstream>

#include <ATen/ATen.h>

#include "cluster/base/files.h"
#include "cluster/base/log.h"
#include "comm/together.h"
#include "launch/rank/commands.h"
#include "launch/rank/loaded_model.h"
#include "launch/rank/text_tool.h"
#include "runtime/stopwatch.h"

namespace echelon {

namespace {

using Ids = std::vector<int64_t>;

constexpr int64_t kPromptsLimit = 64 << 20;

/// Prompts that go on together.
class Generation {
 public:
  Generation(Model& model, const Mesh& mesh, const std::vector<Ids>& prompts, const SamplingOptions& options)
      : model_(model), mesh_(mesh), options_(options), ids_(prompts), done_(prompts.size()) {
    for (const Ids& prompt : prompts) longest_ = std::max(longest_, static_cast<int64_t>(prompt.size()));
    int64_t room = model.architecture().max_positions - model.extra_positions() - longest_;
    new_tokens_ = std::min(options.max_new_tokens, room);
    if (room < options.max_new_tokens && mesh.world().rank() == 0)
      EC_LOG(warning, "text ends at the model's {} positions", longest_ + room);
    make_cache();
  }

  std::vector<Ids> run() {
    at::Tensor logits = read_prompts();
    for (int64_t made = 0; take_tokens(logits), ++made < new_tokens_ && !all_done();) {
      std::vector<int64_t> last;
      for (const Ids& ids : ids_) last.push_back(ids.back());
      // What a prompt that is done would say next is not looked at.
      logits = logits_of(at::tensor(last, at::kLong).view({-1, 1}), cache_, longest_ + made - 1);
    }
    return ids_;
  }

 private:
  void make_cache();
  /// The logits [B, V] behind each prompt.
  at::Tensor read_prompts();
  at::Tensor logits_of(const at::Tensor& ids, KeyValueCache& cache, int64_t past);
  void take_tokens(const at::Tensor& logits);
  at::Device device() const { return mesh_.world().device(); }
  at::TensorOptions of_ranks(at::ScalarType dtype) const { return at::TensorOptions(dtype).device(device()); }
  bool all_done() const {
    return std::all_of(done_.begin(), done_.end(), [](bool done) { return done; });
  }

  Model& model_;
  const Mesh& mesh_;
  const SamplingOptions& options_;
  std::vector<Ids> ids_;
  std::vector<bool> done_;
  int64_t longest_ = 0, new_tokens_ = 0;
  KeyValueCache cache_;
};

void Generation::make_cache() {
  const Architecture& a = model_.architecture();
  auto sequences = static_cast<int64_t>(ids_.size());
  int64_t columns = longest_ + new_tokens_ + model_.extra_positions();
  // Zeros: what stands before a prompt's begin is masked, that is, multiplied by zero, and so must be a number.
  cache_.memory = at::zeros({a.layers, 2, sequences, a.kv_heads / mesh_.tp().size(), columns, a.head_width},
                            of_ranks(model_.weights().units.front()->zero().options.values));
  bool ragged = std::any_of(ids_.begin(), ids_.end(),
                            [&](const Ids& ids) { return static_cast<int64_t>(ids.size()) < longest_; });
  if (!ragged) return;
  for (const Ids& ids : ids_) cache_.begins.push_back(longest_ - static_cast<int64_t>(ids.size()));
  cache_.attention_mask = at::arange(columns).ge(at::tensor(cache_.begins, at::kLong).unsqueeze(1)).to(device());
}

at::Tensor Generation::read_prompts() {
  if (cache_.begins.empty()) {
    std::vector<at::Tensor> rows;
    for (const Ids& ids : ids_) rows.push_back(at::tensor(ids, at::kLong));
    return logits_of(at::stack(rows), cache_, 0);
  }
  // One by one, each into its own columns, where it begins in the first: so nothing is padded.
  std::vector<at::Tensor> rows;
  for (size_t i = 0; i < ids_.size(); ++i) {
    at::Tensor columns = cache_.memory.narrow(2, static_cast<int64_t>(i), 1);
    KeyValueCache own{.memory = columns.narrow(4, cache_.begins[i], columns.size(4) - cache_.begins[i])};
    rows.push_back(logits_of(at::tensor(ids_[i], at::kLong).view({1, -1}), own, 0));
  }
  return at::cat(rows);
}

at::Tensor Generation::logits_of(const at::Tensor& ids, KeyValueCache& cache, int64_t past) {
  Batch batch{.tensors = {{"input_ids", ids.to(device())}}, .samples = Ids(static_cast<size_t>(ids.size(0)))};
  Pass pass = model_.pass(batch, Seed(0), /*training=*/false, &cache, past);
  return model_.forward(batch, pass).logits.select(1, -1);
}

void Generation::take_tokens(const at::Tensor& logits) {
  at::Tensor tokens = at::empty({logits.size(0)}, of_ranks(at::kLong));
  for (size_t i = 0; i < ids_.size(); ++i) {
    Seed seed = Seed(options_.seed + static_cast<int64_t>(i)).with("generate");
    tokens[i] = choose(logits[i], options_.temperature, options_.top_p, seed.uniform(ids_[i].size()));
  }
  // Rank 0's choice: the ranks must not part over a rounding.
  mesh_.world().broadcast(tokens, 0, {.name = "next tokens"}).wait();
  tokens = tokens.cpu();
  for (size_t i = 0; i < ids_.size(); ++i) {
    if (done_[i]) continue;
    ids_[i].push_back(tokens[i].item<int64_t>());
    done_[i] = std::find(options_.ends.begin(), options_.ends.end(), ids_[i].back()) != options_.ends.end();
  }
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

/// The prompts as text: one, or those of a file of JSON lines.
std::vector<std::string> texts_of(const GenerateArguments& arguments) {
  if (arguments.prompts.empty()) return {arguments.prompt};
  std::vector<std::string> texts;
  std::istringstream file(read_file(arguments.prompts, Error::Kind::input, kPromptsLimit));
  int64_t number = 0;
  for (std::string line; std::getline(file, line);) {
    std::string place = fmt::format("{}:{}", arguments.prompts, ++number);
    texts.push_back(json_string(parse_json(line, place), "prompt", place));
  }
  if (texts.empty())
    throw Error::input(arguments.prompts, "holds no prompt").expected(R"({"prompt": "…"} in each line)");
  return texts;
}

std::vector<Ids> prompts_of(const GenerateArguments& arguments, const ModelSource& source, const Group& world) {
  if (arguments.prompt_ids) return {*arguments.prompt_ids};
  if (source.tokenizer_folder.empty()) {
    throw Error::input(arguments.model, "has no tokenizer").remedy("give the prompt as --prompt_ids");
  }
  std::istringstream lines(on_first_rank(world, "prompt", [&] {
    return fmt::format("{}", fmt::join(encode_texts(source.tokenizer_folder, texts_of(arguments)), "\n"));
  }));
  std::vector<Ids> prompts;
  for (std::string line; std::getline(lines, line);) prompts.push_back(parse_ids(line));
  if (prompts.empty()) prompts.emplace_back();  // an empty text
  return prompts;
}

void print(const GenerateArguments& arguments, const std::string& tokenizer_folder, const std::vector<Ids>& ids) {
  std::vector<std::string> lines;
  for (const Ids& each : ids) lines.push_back(fmt::format("{}", fmt::join(each, ",")));
  if (!arguments.prompt_ids) lines = decode_ids(tokenizer_folder, lines);
  bool of_file = !arguments.prompts.empty();
  std::vector<std::string> prompts = of_file ? texts_of(arguments) : std::vector<std::string>(lines.size());
  for (size_t i = 0; i < lines.size(); ++i)
    fmt::print("{}\n", of_file ? dump_json({{"prompt", prompts[i]}, {"text", lines[i]}}) : lines[i]);
}

void say_speed(const std::vector<Ids>& prompts, const std::vector<Ids>& ids, double seconds) {
  size_t made = 0;
  for (size_t i = 0; i < ids.size(); ++i) made += ids[i].size() - prompts[i].size();
  EC_LOG(info, "{} tokens behind {} prompt{} in {:.3f} s: {:.0f} tokens/s", made, ids.size(),
         ids.size() == 1 ? "" : "s", seconds, static_cast<double>(made) / seconds);
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

std::vector<Ids> generate(Model& model, const Mesh& mesh, const std::vector<Ids>& prompts,
                          const SamplingOptions& options) {
  return Generation(model, mesh, prompts, options).run();
}

int run_generate(const CommandLine& line, Session& session) {
  GenerateArguments arguments = generate_arguments(line);
  const Group& world = session.world();
  ModelSource source = open_folder_or_checkpoint(arguments.model);
  if (!source.architecture.causal || !source.architecture.head) {
    throw Error::input(arguments.model, "is no language model that continues text")
        .expected("GPT2LMHeadModel or LlamaForCausalLM");
  }
  std::vector<Ids> prompts = prompts_of(arguments, source, world);
  for (const Ids& prompt : prompts) check_prompt(prompt, source.architecture);
  SamplingOptions options{.max_new_tokens = arguments.max_new_tokens,
                          .temperature = arguments.temperature,
                          .top_p = arguments.top_p,
                          .seed = arguments.seed,
                          .ends = end_ids(arguments.model, source.config)};
  Recipe layout;
  layout.set_precision(arguments.precision);
  LoadedModel loaded(std::move(source), world, layout, arguments.adapter);
  if (arguments.merge_adapters) merge_adapters(loaded.model, *loaded.adapters, arguments.model, arguments.adapter);
  Stopwatch watch(0);
  std::vector<Ids> ids = generate(loaded.model, loaded.mesh, prompts, options);
  if (world.rank() == 0) {
    say_speed(prompts, ids, watch.total());
    print(arguments, loaded.source.tokenizer_folder, ids);
  }
  return 0;
}

}  // namespace echelon
