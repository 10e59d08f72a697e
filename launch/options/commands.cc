#include "launch/options/commands.h"

#include <algorithm>

#include <fmt/format.h>
#include <gflags/gflags.h>

#include "cluster/base/error.h"
#include "cluster/base/text.h"
#include "runtime/recipe/overrides.h"

namespace echelon {

namespace {

using Names = std::vector<std::string>;

// Given by the launcher to its ranks, not typed by people.
const Names kFromLauncher = {"status_folder", "progress", "before_step"};

Names with(Names own, const Names& more) {
  own.insert(own.end(), more.begin(), more.end());
  return own;
}

std::vector<Command> make_commands() {
  const Names start = {"ranks", "hosts", "hostfile", "launcher"};
  return {
      {.name = "train",
       .usage = "RECIPE [path=value ...]",
       .summary = "trains; makes or continues a run folder",
       .flags = with({"out", "resume", "max_restarts", "adapter", "dry_run", "profile", "trust_dir", "submit", "nodes",
                      "time", "partition", "seconds_to_save"},
                     start),
       .least_names = 1,
       .most_names = 1,
       .takes_overrides = true,
       .runs_on_ranks = true},
      {.name = "batches",
       .usage = "RECIPE [path=value ...] --steps=K --output=X.safetensors",
       .summary = "writes the batches that training would see",
       .flags = with({"steps", "output"}, start),
       .least_names = 1,
       .most_names = 1,
       .takes_overrides = true,
       .runs_on_ranks = true},
      {.name = "eval",
       .usage = "RECIPE --model=DIR [path=value ...]",
       .summary = "metrics of the validation source, one JSON line",
       .flags = with({"model", "adapter", "merge_adapters"}, start),
       .least_names = 1,
       .most_names = 1,
       .takes_overrides = true,
       .runs_on_ranks = true},
      {.name = "forward",
       .usage = "--model=DIR --input=X.safetensors --output=Y.safetensors [mesh.tp=2 ...]",
       .summary = "runs a model on given inputs, writes its outputs",
       .flags = with({"model", "adapter", "merge_adapters", "input", "output", "precision", "gradients"}, start),
       .takes_overrides = true,
       .runs_on_ranks = true},
      {.name = "generate",
       .usage = "--model=DIR (--prompt=TEXT | --prompts=FILE | --prompt_ids=1,2,3)",
       .summary = "continues texts",
       .flags = with({"model", "adapter", "merge_adapters", "prompt", "prompts", "prompt_ids", "max_new_tokens",
                      "temperature", "top_p", "seed", "precision"},
                     start),
       .runs_on_ranks = true},
      {.name = "export",
       .usage = "CHECKPOINT --out=DIR",
       .summary = "writes a Hugging Face folder",
       .flags = {"out", "dtype", "max_shard_size"},
       .least_names = 1,
       .most_names = 1,
       .runs_on_ranks = true},
      {.name = "merge",
       .usage = "--model=DIR --adapter=PEFT_DIR --out=DIR [mesh.tp=2]",
       .summary = "folds an adapter into its base, with a record to undo it",
       .flags = with({"model", "adapter", "out"}, start),
       .takes_overrides = true,
       .runs_on_ranks = true},
      {.name = "unmerge",
       .usage = "--model=DIR --out=DIR",
       .summary = "gives a merged model's base back, bit by bit",
       .flags = with({"model", "out"}, start),
       .takes_overrides = true,
       .runs_on_ranks = true},
      {.name = "prepare",
       .usage = "--input=FILES --tokenizer=(HF_DIR | train:bpe:8192 | train:wordpiece:8192) --out=PREFIX",
       .summary = "turns text into token ids"},
      {.name = "inspect",
       .usage = "PATH",
       .summary = "what a checkpoint, model, data or run folder holds, and if it is whole",
       .flags = {"verify", "json"},
       .least_names = 1,
       .most_names = 1},
      {.name = "recipes", .usage = "", .summary = "every recipe", .flags = {"json"}},
      {.name = "describe",
       .usage = "[NAME]",
       .summary = "a Part or a recipe: options, defaults, paper; without a name, every Part",
       .most_names = 1},
      {.name = "doctor", .usage = "", .summary = "what this machine has and lacks for training", .flags = {"json"}},
      {.name = "drill",
       .usage = "FAULT RECIPE [path=value ...] | --list",
       .summary = "breaks a run on purpose: noticed when, what was lost, bits equal or not",
       .flags = {"out", "ranks", "seed", "list"},
       .most_names = 2,
       .takes_overrides = true},
      {.name = "plan", .summary = "memory and time of a run that is not started", .available = false},
      {.name = "verify", .summary = "compares layouts with one rank", .available = false},
  };
}

class Parser {
 public:
  explicit Parser(const std::vector<std::string>& arguments) : arguments_(arguments) {}

  CommandLine parse() {
    line_.command = &find_command(arguments_.at(0));
    for (next_ = 1; next_ < arguments_.size();) argument(arguments_[next_++]);
    if (!line_.help) check_names();
    return line_;
  }

 private:
  void argument(const std::string& text) {
    if (!flags_ended_ && text == "--") {
      flags_ended_ = true;
    } else if (!flags_ended_ && text.size() > 1 && text[0] == '-') {
      flag(text);
    } else if (line_.command->takes_overrides && is_override(text)) {
      line_.overrides.push_back(text);
    } else {
      line_.names.push_back(text);
    }
  }

  void flag(const std::string& text) {
    std::string body = text.substr(text.starts_with("--") ? 2 : 1);
    size_t equals = body.find('=');
    std::string name = body.substr(0, equals);
    std::replace(name.begin(), name.end(), '-', '_');
    if (name == "help" || name == "h") {
      line_.help = true;
      return;
    }
    if (equals == std::string::npos && name.starts_with("no") && is_bool(name.substr(2)))
      return set(text, name.substr(2), "false");
    if (!known(name)) refuse_unknown(text, name);
    if (equals != std::string::npos) return set(text, name, body.substr(equals + 1));
    if (is_bool(name)) return set(text, name, "true");
    if (next_ == arguments_.size())
      throw Error::usage(text, "needs a value").remedy(fmt::format("write --{}=VALUE", name));
    set(text, name, arguments_[next_++]);
  }

  bool known(const std::string& name) const {
    const Names& flags = line_.command->flags;
    if (std::find(flags.begin(), flags.end(), name) != flags.end()) return true;
    bool internal = std::find(kFromLauncher.begin(), kFromLauncher.end(), name) != kFromLauncher.end();
    return internal && line_.command->runs_on_ranks;
  }

  bool is_bool(const std::string& name) const {
    gflags::CommandLineFlagInfo info;
    return known(name) && gflags::GetCommandLineFlagInfo(name.c_str(), &info) && info.type == "bool";
  }

  void set(const std::string& text, const std::string& name, const std::string& value) const {
    if (!gflags::SetCommandLineOption(name.c_str(), value.c_str()).empty()) return;
    gflags::CommandLineFlagInfo info;
    gflags::GetCommandLineFlagInfo(name.c_str(), &info);
    throw Error::usage(printable(text), fmt::format("\"{}\" is no {}", printable(value), info.type));
  }

  [[noreturn]] void refuse_unknown(const std::string& text, const std::string& name) const {
    std::vector<std::string> candidates;
    for (const std::string& flag : line_.command->flags) candidates.push_back("--" + flag);
    std::string near = did_you_mean("--" + name, candidates);
    throw Error::usage(printable(text), fmt::format("no such flag of {}", line_.command->name))
        .remedy(near.empty() ? fmt::format("`echelon {} --help` lists them", line_.command->name) : near);
  }

  void check_names() const {
    int count = static_cast<int>(line_.names.size());
    const Command& command = *line_.command;
    if (count < command.least_names) throw Error::usage(command.name, "too few arguments").expected(command.usage);
    if (count > command.most_names) {
      throw Error::usage(command.name,
                         fmt::format("too many arguments: \"{}\"", printable(line_.names[command.most_names])))
          .expected(command.usage.empty() ? "none" : command.usage);
    }
  }

  const std::vector<std::string>& arguments_;
  size_t next_ = 0;
  bool flags_ended_ = false;
  CommandLine line_;
};

std::string flag_help(const std::string& name) {
  gflags::CommandLineFlagInfo info;
  gflags::GetCommandLineFlagInfo(name.c_str(), &info);
  std::string value = info.type == "bool" ? "" : info.default_value.empty() ? "=" : "=" + info.default_value;
  return fmt::format("  --{:<24} {}\n", name + value, info.description);
}

}  // namespace

const std::vector<Command>& commands() {
  static const std::vector<Command> commands = make_commands();
  return commands;
}

const Command& find_command(const std::string& name) {
  Names names;
  for (const Command& command : commands()) {
    if (command.name == name && command.available) return command;
    if (command.name == name) throw Error::usage(name, "this command is not available yet");
    names.push_back(command.name);
  }
  std::string near = did_you_mean(name, names);
  throw Error::usage(printable(name), "no such command").remedy(near.empty() ? "`echelon --help` lists them" : near);
}

CommandLine parse_command_line(const std::vector<std::string>& arguments) { return Parser(arguments).parse(); }

std::string help_text() {
  std::string text =
      "Echelon trains large encoders and decoders over many ranks.\n\nUsage: echelon COMMAND [arguments]\n\n";
  for (const Command& command : commands()) {
    if (command.available) text += fmt::format("  {:<10} {}\n", command.name, command.summary);
  }
  return text +
         "\n`echelon COMMAND --help` shows a command's arguments and flags.\n"
         "Try:   echelon doctor\n"
         "       echelon train base/tiny_decoder_clm --ranks=2 steps=20\n";
}

std::string help_text(const Command& command) {
  std::string text = fmt::format("echelon {} {}\n  {}\n", command.name, command.usage, command.summary);
  if (command.takes_overrides)
    text += "  path=value sets a field of the recipe: steps=100 mesh.tp=2 optimizer.learning_rate=3e-4\n";
  if (!command.flags.empty()) text += "\n";
  for (const std::string& flag : command.flags) text += flag_help(flag);
  return text;
}

}  // namespace echelon
