#include "runtime/recipe/check.h"

#include <algorithm>
#include <regex>

#include "cluster/base/error.h"
#include "cluster/base/pattern.h"
#include "cluster/base/registry.h"
#include "cluster/base/secret.h"
#include "cluster/base/text.h"
#include "runtime/recipe/parts.h"
#include "runtime/recipe/ranges.h"
#include "runtime/recipe/resolve.h"
#include "runtime/recipe/texts.h"

namespace echelon {

namespace pb = google::protobuf;

namespace {

class Checks {
 public:
  Checks(const Recipe& recipe, int ranks, const Places& places) : recipe_(recipe), ranks_(ranks), places_(places) {}

  void run() {
    check_ranges(recipe_, [this](const std::string& path, const std::string& what) { refuse(path, what); });
    secrets();
    name();
    not_built_yet();
    parts();
    model();
    mesh();
    batch();
    optimizer();
    parameter_groups();
  }

 private:
  [[noreturn]] void refuse(const std::string& path, const std::string& what) const {
    throw Error::recipe(places_.of(path), what);
  }
  [[noreturn]] void later(const std::string& path, const std::string& what) const {
    refuse(path, what + " is not available yet");
  }

  // The recipe is printed, and saved with the run.
  void secrets() const {
    std::string found = find_text(recipe_, "", holds_secret);
    if (!found.empty()) refuse(found, fmt::format("SECRETS: {} holds what looks like a password or a token", found));
  }

  // Names become folders.
  void name() const {
    static const std::regex allowed(R"([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})");
    if (!std::regex_match(recipe_.name(), allowed)) {
      refuse("name",
             fmt::format("name \"{}\" is not 1 to 64 letters, digits, '_', '.' or '-'", printable(recipe_.name())));
    }
  }

  void not_built_yet() const {
    const MeshConfig& mesh = recipe_.mesh();
    if (mesh.pp() != 1) later("mesh.pp", fmt::format("pipeline parallelism (mesh.pp = {})", mesh.pp()));
    if (mesh.cp() != 1) later("mesh.cp", fmt::format("context parallelism (mesh.cp = {})", mesh.cp()));
    if (mesh.ep() != 1) later("mesh.ep", fmt::format("expert parallelism (mesh.ep = {})", mesh.ep()));
    if (recipe_.reproducible()) later("reproducible", "the same bits on any layout (reproducible: true)");
    if (recipe_.precision() == FP16) later("precision", "precision FP16");
  }

  void part(const std::string& path, const pb::Any& any, const std::string& kind) const {
    const pb::Descriptor* options = find_part(part_name(any));
    if (!options) refuse(path, unknown_part(part_name(any), kind));
    if (kind_of(*options) != kind) {
      refuse(path, fmt::format("{} is of kind {}, {} takes {}", options->name(), kind_of(*options), path,
                               fmt::join(part_names(kind), ", ")));
    }
  }

  void parts() const {
    if (!recipe_.has_objective()) refuse("objective", "no objective is given");
    if (!recipe_.data().has_train()) refuse("data.train", "no data.train is given");
    if (!recipe_.has_optimizer()) refuse("optimizer", "no optimizer is given");
    part("objective", recipe_.objective(), "objective");
    part("data.train", recipe_.data().train(), "source");
    part("optimizer", recipe_.optimizer(), "optimizer");
    part("schedule", recipe_.schedule(), "schedule");
    for (int i = 0; i < recipe_.adapter_size(); ++i) part(fmt::format("adapter.{}", i), recipe_.adapter(i), "adapter");
    if (recipe_.has_exchange()) part("exchange", recipe_.exchange(), "exchange");
    if (recipe_.data().has_validation()) part("data.validation", recipe_.data().validation(), "source");
    if (recipe_.evaluate().every() > 0 && !recipe_.data().has_validation()) {
      refuse("evaluate.every", "evaluate.every is set and there is no data.validation");
    }
  }

  void model() const {
    switch (recipe_.model().source_case()) {
      case ModelConfig::SOURCE_NOT_SET:
        refuse("model", "no model is given: load, config or architecture");
      case ModelConfig::kLoad:
        return path_given("model.load", recipe_.model().load());
      case ModelConfig::kConfig:
        return path_given("model.config", recipe_.model().config());
      case ModelConfig::kArchitecture:
        return architecture(recipe_.model().architecture());
    }
  }

  void path_given(const std::string& path, const std::string& value) const {
    if (value.empty()) refuse(path, path + " is empty");
  }

  void architecture(const ArchitectureConfig& shape) const {
    family(shape.family());
    const std::string at = "model.architecture.";
    for (auto [field, value] :
         {std::pair("layers", shape.layers()), {"width", shape.width()}, {"heads", shape.heads()}}) {
      if (value < 1) refuse(at + field, fmt::format("{} must be given, at least 1", at + field));
    }
    bool llama = shape.family() == "llama";
    if (llama ? !shape.has_head_width() : shape.width() % shape.heads() != 0) {
      refuse(at + "heads", fmt::format("heads {} does not divide width {}", shape.heads(), shape.width()));
    }
    if (llama && shape.heads() % shape.kv_heads() != 0) {
      refuse(at + "kv_heads", fmt::format("kv_heads {} does not divide heads {}", shape.kv_heads(), shape.heads()));
    }
    if (llama && shape.head_width() % 2 != 0) {
      refuse(at + "head_width", fmt::format("head_width {} is odd; rotary positions turn pairs", shape.head_width()));
    }
    belongs_to_family(shape);
    objective_fits(shape.family());
    sequences_fit(shape.positions());
    divides_tp(at + "heads", shape.heads());
    divides_tp(at + "feed_forward", shape.feed_forward());
    if (llama) divides_tp(at + "kv_heads", shape.kv_heads());
  }

  void family(const std::string& name) const {
    const auto& families = known_families();
    if (std::find(families.begin(), families.end(), name) != families.end()) return;
    std::string near = did_you_mean(name, families);
    if (near.empty()) near = fmt::format("there are {}", fmt::join(families, ", "));
    refuse("model.architecture.family", fmt::format("unknown family \"{}\"; {}", printable(name), near));
  }

  void belongs_to_family(const ArchitectureConfig& shape) const {
    auto only = [&](bool present, const char* field, const char* family) {
      if (!present || shape.family() == family) return;
      refuse(std::string("model.architecture.") + field,
             fmt::format("{} is for {}, not for {}", field, family, shape.family()));
    };
    only(shape.has_kv_heads(), "kv_heads", "llama");
    only(shape.has_head_width(), "head_width", "llama");
    only(shape.has_rope_theta(), "rope_theta", "llama");
    only(shape.has_token_types(), "token_types", "bert");
  }

  void objective_fits(const std::string& family) const {
    std::string objective = part_name(recipe_.objective());
    bool causal = family != "bert";
    if (objective == "echelon.MaskedLm" && causal)
      refuse("objective", fmt::format("MaskedLm needs an encoder; {} is a decoder", family));
    if (objective == "echelon.CausalLm" && !causal)
      refuse("objective", fmt::format("CausalLm needs a decoder; {} is an encoder", family));
  }

  void sequences_fit(int64_t positions) const {
    for (auto [path, any] :
         {std::pair("data.train", &recipe_.data().train()), {"data.validation", &recipe_.data().validation()}}) {
      if (any->type_url().empty()) continue;
      std::unique_ptr<pb::Message> options = unpack_part(*any);
      const pb::FieldDescriptor* length = options->GetDescriptor()->FindFieldByName("sequence_length");
      if (!length) continue;
      int64_t tokens = options->GetReflection()->GetInt64(*options, length);
      if (tokens > positions) {
        refuse(fmt::format("{}.sequence_length", path),
               fmt::format("sequence_length {} is beyond the model's {} positions", tokens, positions));
      }
    }
  }

  void divides_tp(const std::string& path, int64_t value) const {
    int tp = recipe_.mesh().tp();
    if (value % tp != 0) refuse("mesh.tp", fmt::format("mesh.tp {} does not divide {} {}", tp, path, value));
  }

  void mesh() const {
    const MeshConfig& mesh = recipe_.mesh();
    if (ranks_ % mesh.tp() != 0)
      refuse("mesh.tp", fmt::format("mesh.tp {} does not divide {} ranks", mesh.tp(), ranks_));
    int64_t asked = int64_t{mesh.dp()} * mesh.tp();
    if (mesh.dp() != 0 && asked != ranks_) {
      refuse("mesh.dp", fmt::format("mesh dp {} tp {} takes {} ranks and there are {}; dp 0 takes what remains",
                                    mesh.dp(), mesh.tp(), asked, ranks_));
    }
    int dp = data_parallel_ranks(recipe_, ranks_);
    if (dp % mesh.replicas() != 0) {
      refuse("mesh.replicas", fmt::format("mesh.replicas {} does not divide dp {}", mesh.replicas(), dp));
    }
  }

  void batch() const {
    int64_t dp = data_parallel_ranks(recipe_, ranks_);
    int64_t global = recipe_.batch().global(), micro = recipe_.batch().micro();
    if (global % dp != 0) refuse("batch.global", fmt::format("batch.global {} is not divisible by dp {}", global, dp));
    if (micro > 0 && global % (micro * dp) != 0) {
      refuse("batch.micro", fmt::format("batch.global {} is not divisible by micro {} times dp {}", global, micro, dp));
    }
  }

  void optimizer() const {
    std::unique_ptr<pb::Message> options = unpack_part(recipe_.optimizer());
    const pb::FieldDescriptor* nesterov = options->GetDescriptor()->FindFieldByName("nesterov");
    const pb::FieldDescriptor* momentum = options->GetDescriptor()->FindFieldByName("momentum");
    if (!nesterov || !momentum) return;
    const pb::Reflection* reflection = options->GetReflection();
    if (reflection->GetBool(*options, nesterov) && reflection->GetDouble(*options, momentum) == 0) {
      refuse("optimizer.nesterov", "nesterov needs a momentum above 0");
    }
  }

  void parameter_groups() const {
    for (int i = 0; i < recipe_.parameter_group_size(); ++i) {
      std::string path = fmt::format("parameter_group.{}.pattern", i);
      const std::string& pattern = recipe_.parameter_group(i).pattern();
      if (pattern.empty()) refuse(path, "pattern takes 1 to 1000 characters");
      Pattern compiled(pattern, places_.of(path));
    }
  }

  const Recipe& recipe_;
  int ranks_;
  const Places& places_;
};

}  // namespace

int data_parallel_ranks(const Recipe& recipe, int ranks) { return ranks / recipe.mesh().tp(); }

void check_recipe(const Recipe& recipe, int ranks, const Places& places) { Checks(recipe, ranks, places).run(); }

void check_recipe(const Recipe& recipe, int ranks, const std::string& place) {
  check_recipe(recipe, ranks, Places(place));
}

}  // namespace echelon
