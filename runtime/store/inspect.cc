#include "runtime/store/inspect.h"

#include <algorithm>
#include <initializer_list>
#include <map>

#include "cluster/base/indexed_tokens.h"
#include "cluster/base/safetensors.h"
#include "cluster/base/text.h"
#include "runtime/store/checkpoint_store.h"
#include "runtime/store/metrics_file.h"
#include "runtime/store/roll_backs.h"
#include "runtime/store/run_folder.h"

namespace echelon {

namespace {

constexpr size_t most_listed = 200;

void add_line(Inspection& found, const std::string& line) { found.text += printable(line) + "\n"; }

void add_damage(Inspection& found, const std::string& indent, const std::string& sentence) {
  add_line(found, indent + "DAMAGED: " + sentence);
  found.damage.push_back(sentence);
}

int64_t elements(const TensorEntry& entry) {
  int64_t count = 1;
  for (int64_t size : entry.shape) count *= size;
  return count;
}

/// Totals by dtype, then the tensors themselves.
void add_tensors(Inspection& found, std::vector<const TensorEntry*> entries) {
  std::sort(entries.begin(), entries.end(), [](auto* a, auto* b) { return a->name < b->name; });
  std::map<std::string, int64_t> by_dtype;
  int64_t bytes = 0, count = 0;
  for (const TensorEntry* entry : entries) {
    by_dtype[std::string(dtype_name(entry->dtype))] += elements(*entry);
    bytes += static_cast<int64_t>(entry->size());
    count += elements(*entry);
  }
  add_line(found, fmt::format("{} tensors, {} elements, {}", entries.size(), human_count(count), human_bytes(bytes)));
  for (const auto& [dtype, in_dtype] : by_dtype)
    add_line(found, fmt::format("  {:<8} {} elements", dtype, human_count(in_dtype)));
  Json tensors = Json::array();
  for (const TensorEntry* entry : entries) {
    if (tensors.size() < most_listed) {
      std::string note = dtype_is_loadable(entry->dtype) ? "" : "  (Echelon does not load this dtype)";
      add_line(found, fmt::format("  {}  {} [{}]{}", entry->name, dtype_name(entry->dtype),
                                  fmt::join(entry->shape, ", "), note));
    }
    tensors.push_back({{"name", entry->name}, {"dtype", dtype_name(entry->dtype)}, {"shape", entry->shape}});
  }
  if (entries.size() > most_listed) add_line(found, fmt::format("  … and {} more", entries.size() - most_listed));
  found.json["elements"] = count;
  found.json["bytes"] = bytes;
  found.json["tensors"] = std::move(tensors);
}

void add_metadata(Inspection& found, const std::map<std::string, std::string>& metadata) {
  constexpr size_t longest = 100;
  for (const auto& [key, value] : metadata) {
    add_line(found, fmt::format("  {}: {}{}", key, value.substr(0, longest), value.size() > longest ? "…" : ""));
  }
  found.json["metadata"] = metadata;
}

Inspection inspect_safetensors(const std::string& path) {
  SafetensorsFile file = SafetensorsFile::open(path);
  Inspection found;
  found.json = {{"kind", "safetensors"}, {"path", path}};
  add_line(found, fmt::format("{}: safetensors", path));
  add_metadata(found, file.metadata());
  std::vector<const TensorEntry*> entries;
  for (const TensorEntry& entry : file.entries()) entries.push_back(&entry);
  add_tensors(found, std::move(entries));
  return found;
}

Inspection inspect_model(const std::string& path) {
  SafetensorsFolder folder = SafetensorsFolder::open(path);
  Inspection found;
  found.json = {{"kind", "model"}, {"path", path}, {"shards", folder.files().size()}};
  std::string family = "no config.json", config_path = join_path(path, "config.json");
  if (exists(config_path)) {
    Json config = parse_json(read_file(config_path, Error::Kind::input, 16 << 20), config_path);
    family = "family " + json_string(config, "model_type", config_path, "unknown");
    found.json["model_type"] = json_string(config, "model_type", config_path, "unknown");
  }
  size_t shards = folder.files().size();
  add_line(found, fmt::format("{}: model folder, {}, {} file{}", path, family, shards, shards == 1 ? "" : "s"));
  add_metadata(found, folder.metadata());
  add_tensors(found, folder.entries());
  return found;
}

Inspection inspect_tokens(const std::string& prefix, bool verify) {
  IndexedTokens tokens = IndexedTokens::open(prefix);
  Inspection found;
  found.json = {{"kind", "tokens"},
                {"path", prefix},
                {"documents", tokens.documents()},
                {"sequences", tokens.sequences()},
                {"tokens", tokens.tokens()},
                {"type", tokens.token_type()}};
  add_line(found, fmt::format("{}: token data, {} documents, {} tokens ({}) of type {}", prefix, tokens.documents(),
                              tokens.tokens(), human_count(tokens.tokens()), tokens.token_type()));
  if (verify && tokens.tokens() > 0) {
    auto [smallest, largest] = tokens.range();
    add_line(found, fmt::format("  ids from {} to {}", smallest, largest));
    found.json["smallest_id"] = smallest;
    found.json["largest_id"] = largest;
    if (smallest < 0) add_damage(found, "  ", fmt::format("{}.bin holds negative ids", prefix));
  }
  return found;
}

Inspection inspect_checkpoint(const std::string& path, bool verify) {
  Checkpoint checkpoint = open_checkpoint(path);
  const Manifest& manifest = checkpoint.manifest;
  Inspection found;
  found.json = {{"kind", "checkpoint"},      {"path", path},
                {"step", manifest.step},     {"root", manifest.root},
                {"layout", manifest.layout}, {"bytes", manifest.total_bytes()},
                {"verified", verify}};
  add_line(found, fmt::format("{}: checkpoint of step {}, {} in {} files", path, manifest.step,
                              human_bytes(manifest.total_bytes()), manifest.files.size()));
  add_line(found, fmt::format("  layout {}", manifest.layout));
  add_line(found, fmt::format("  root   {}", manifest.root));
  std::vector<std::string> damage = verify ? find_damage(checkpoint) : std::vector<std::string>();
  for (const FileRecord& record : manifest.files) {
    add_line(found, fmt::format("  {}  {}  {}", record.name, human_bytes(record.size), record.writer));
  }
  for (const std::string& sentence : damage) add_damage(found, "  ", sentence);
  if (damage.empty())
    add_line(found, verify ? "  every byte verified" : "  sizes are right; --verify reads every byte");
  found.json["damage"] = damage;
  return found;
}

/// One line for a checkpoint of a run; its damage does not hide the other ones.
void add_step(Inspection& found, const std::string& folder, bool verify) {
  Json json = {{"path", folder}};
  try {
    Inspection step = inspect_checkpoint(folder, verify);
    json = step.json;
    add_line(found, fmt::format("  {}  {}  {}", name_of_file(folder), human_bytes(step.json["bytes"].get<int64_t>()),
                                verify && step.damage.empty() ? "verified" : "sizes right"));
    for (const std::string& sentence : step.damage) add_damage(found, "    ", sentence);
  } catch (const Error& error) {
    json["damage"] = {error.what()};
    add_line(found, "  " + name_of_file(folder));
    add_damage(found, "    ", error.what());
  }
  found.json["checkpoints"].push_back(std::move(json));
}

bool is_step(const Json& line) { return line.contains("loss"); }
bool has_loss(const Json& line) { return is_step(line) && line["loss"].is_number(); }

void add_metrics(Inspection& found, const std::string& path) {
  if (!exists(path)) return;
  std::vector<Json> lines = read_metrics(path);
  auto last = std::find_if(lines.rbegin(), lines.rend(), is_step);
  if (last == lines.rend()) return;
  auto finite = std::find_if(last, lines.rend(), has_loss);
  std::string loss = finite == lines.rend() ? "not finite" : dump_json((*finite)["loss"]);
  if (finite != last && finite != lines.rend()) loss += fmt::format(" (of step {})", dump_json((*finite)["step"]));
  add_line(found,
           fmt::format("metrics: {} lines, last step {}, loss {}", lines.size(), dump_json((*last)["step"]), loss));
  found.json["last"] = *last;
  auto left_out = [](const Json& line) { return line.contains("skipped"); };
  int64_t skipped = std::count_if(lines.begin(), lines.end(), left_out);
  if (skipped > 0) add_line(found, fmt::format("{} step{} left out, not finite", skipped, skipped == 1 ? "" : "s"));
  found.json["skipped"] = skipped;
}

void add_roll_backs(Inspection& found, const std::string& folder) {
  found.json["roll_backs"] = Json::array();
  RollBacks roll_backs = RollBacks::read(folder);
  for (const RollBack& one : roll_backs.all()) {
    add_line(found, fmt::format("rolled back from step {} to step {}, {} samples left out: {}", one.from_step,
                                one.to_step, one.samples, one.reason));
    found.json["roll_backs"].push_back(to_json(one));
  }
}

/// What was moved out of the way: no damage of the run any more, and for people to look at.
void add_set_aside(Inspection& found, const std::string& folder) {
  found.json["set_aside"] = Json::array();
  if (!is_folder(folder)) return;
  for (const std::string& name : list_folder(folder)) {
    add_line(found, "set aside: " + join_path(folder, name));
    found.json["set_aside"].push_back(name);
  }
}

Inspection inspect_run(const std::string& path, bool verify) {
  Inspection found;
  std::string holder = holder_of(path);
  found.json = {{"kind", "run"}, {"path", path}, {"held_by", holder}, {"checkpoints", Json::array()}};
  add_line(found, fmt::format("{}: run folder{}", path, holder.empty() ? "" : ", in use by " + holder));
  add_metrics(found, join_path(path, "metrics.jsonl"));
  add_roll_backs(found, path);
  CheckpointStore store(path);
  std::vector<int64_t> steps = store.steps();
  add_line(found, fmt::format("{} checkpoint{}", steps.size(), steps.size() == 1 ? "" : "s"));
  for (int64_t step : steps) add_step(found, store.folder(step), verify);
  add_set_aside(found, join_path(path, "damaged"));
  if (exists(join_path(path, "export"))) add_line(found, "exported to " + join_path(path, "export"));
  return found;
}

bool has_any(const std::string& folder, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(), [&](const char* name) { return exists(join_path(folder, name)); });
}

Inspection inspect_folder(const std::string& path, bool verify) {
  if (has_any(path, {"manifest.json"})) return inspect_checkpoint(path, verify);
  if (has_any(path, {"checkpoints", "metrics.jsonl", "recipe.textproto"})) return inspect_run(path, verify);
  if (has_any(path, {"adapter_model.safetensors"}))
    return inspect_safetensors(join_path(path, "adapter_model.safetensors"));
  return inspect_model(path);
}

/// `checkpoints/latest` holds the name of a folder beside it.
Inspection inspect_latest(const std::string& path, bool verify) {
  constexpr int64_t longest = 64;
  std::string name = read_file(path, Error::Kind::storage, longest);
  name = name.substr(0, name.find('\n'));
  if (!step_of_name(name))
    throw Error::storage(path, "names no checkpoint").got(printable(name)).expected(step_name(50));
  return inspect_checkpoint(join_path(folder_of(path), name), verify);
}

}  // namespace

Inspection inspect_path(const std::string& path, bool verify) {
  if (is_folder(path)) return inspect_folder(path, verify);
  bool is_token_file = path.ends_with(".idx") || path.ends_with(".bin");
  std::string prefix = is_token_file ? path.substr(0, path.size() - 4) : path;
  if (exists(prefix + ".idx")) return inspect_tokens(prefix, verify);
  if (!exists(path)) throw Error::input(path, "no such file or folder");
  if (name_of_file(path) == "latest") return inspect_latest(path, verify);
  return inspect_safetensors(path);
}

Error damage_error(const std::string& path, const Inspection& found) {
  bool is_stored = found.json["kind"] == "checkpoint" || found.json["kind"] == "run";
  std::string others = found.damage.size() > 1 ? fmt::format(" (and {} more)", found.damage.size() - 1) : "";
  return Error(is_stored ? Error::Kind::storage : Error::Kind::input, path, found.damage.front() + others);
}

std::string inspect(const std::string& path, bool verify) {
  Inspection found = inspect_path(path, verify);
  if (!found.damage.empty()) throw damage_error(path, found);
  return found.text;
}

}  // namespace echelon
