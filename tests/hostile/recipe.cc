// Recipes and what is set from the command line.
#include <functional>

#include "runtime/recipe/check.h"
#include "runtime/recipe/overrides.h"
#include "runtime/recipe/resolve.h"
#include "runtime/recipe/text.h"
#include "tests/hostile/reader.h"
#include "tests/recipe/folder.h"

namespace echelon::hostile {

namespace {

const std::string good = kGood;

std::vector<Attack> broken_texts() {
  return {
      {"unknown field", "no field \"stpes\"", "stpes: 1"},
      {"field of 100,000 bytes", "has no field named", std::string(100'000, 'a') + ": 1"},
      {"field of 4 MiB", "has no field named", std::string((4 << 20) - 4, 'a') + ": 1"},
      {"Part of 100,000 bytes", "attack.textproto:1:", "optimizer { [echelon/" + std::string(100'000, 'A') + "] {} }"},
      {"value of 100,000 bytes", "attack.textproto:1:", "precision: " + std::string(100'000, 'F')},
      {"field of another message", "no field \"tp\"", "tp: 2"},
      {"field number", "attack.textproto:1:", "5: 7"},
      {"extension", "attack.textproto:1:", "[echelon.none]: 7"},
      {"field twice", "attack.textproto:2:", "steps: 1\nsteps: 2"},
      {"both of a oneof", "attack.textproto:1:", "model { load: \"a\" config: \"b\" }"},
      {"text for a number", "attack.textproto:1:8", "steps: \"many\""},
      {"number for text", "attack.textproto:1:7", "name: 7"},
      {"number with a point", "attack.textproto:1:8", "steps: 1.5"},
      {"number of 2^63", "attack.textproto:1:8", "steps: 9223372036854775808"},
      {"number of 2^31", "attack.textproto:1:", "mesh { dp: 2147483648 }"},
      {"number of 1000 digits", "attack.textproto:1:8", "steps: " + std::string(1000, '9')},
      {"wrong truth", "attack.textproto:1:", "reproducible: maybe"},
      {"wrong value of an enum", "is no value of precision", "precision: FP31"},
      {"number of no enum value", "attack.textproto:1:", "precision: 99"},
      {"unknown Part", "no Part is named", "optimizer { [echelon/AdamV] {} }"},
      {"Part from the network", "no Part is named", "optimizer { [type.googleapis.com/x.Y] {} }"},
      {"Any in an Any", "attack.textproto:1:", "objective { [type.googleapis.com/google.protobuf.Any] {} }"},
      {"Part by its bytes", "options are damaged", "optimizer { type_url: \"echelon/AdamW\" value: \"\\377\\377\" }"},
      {"unknown option of a Part", "no field \"beta3\"", "optimizer { [echelon/AdamW] { beta3: 1 } }"},
      {"open brace", "attack.textproto:1:", "model {"},
      {"brace too many", "attack.textproto:1:", "}"},
      {"open quote", "attack.textproto:1:", "name: \"a"},
      {"line break in quotes", "attack.textproto:1:", "name: \"a\nb\""},
      {"bad escape", "attack.textproto:1:", "name: \"\\q\""},
      {"no UTF-8", "is no UTF-8", "description: \"\xff\""},
      {"zero byte", "attack.textproto:1:", std::string("steps: 1\0", 9)},
      {"escape bytes", "attack.textproto:1:", "\x1b[2J: 1"},
      {"include", "attack.textproto:2:", "#include \"/etc/passwd\"\n@import"},
      {"too long", "at most 4 MiB", "name: \"" + std::string(5 << 20, 'a') + "\""},
      {"15,000 braces", "attack.textproto:1:", repeated("a{", 15'000)},
      {"known fields, 2,000 deep", "attack.textproto:1:", repeated("model { architecture { ", 2'000)},
      {"Parts in Parts", "attack.textproto:1:", repeated("exchange { [echelon/DiLoCo] { ", 2'000)},
      {"lists, 100,000 deep", "attack.textproto:1:", "trainable: " + repeated("[", 100'000)},
  };
}

/// A field of the good recipe with another value, and its name in the refusal.
std::vector<Attack> wrong_values() {
  std::vector<Attack> all;
  for (auto [line, words] : std::vector<std::pair<std::string, std::string>>{
           {"steps: 0", "steps"},
           {"description: \"\\377\"", "description is no UTF-8"},
           {"trainable: \"\\xed\\xa0\\x80\"", "trainable.0 is no UTF-8"},
           {"description: \"hf_0123456789abcdefghij\"", "SECRETS: description holds what looks like"},
           {"model { load: \"https://me:password@host/x\" }", "SECRETS: model.load holds"},
           {"trainable: \"a\" trainable: \"password=correct-horse\"", "SECRETS: trainable.1 holds"},
           {"steps: -1", "steps"},
           {"clip_norm: -1", "clip_norm"},
           {"clip_norm: nan", "clip_norm"},
           {"clip_norm: inf", "clip_norm"},
           {"name: \"../x\"", "name \"../x\""},
           {"name: \"\"", "name \"\""},
           {"name: \"a\\nb\"", "name \"a\\x0ab\""},
           {"name: \"-rf\"", "name \"-rf\""},
           {"name: \"a b\"", "name \"a b\""},
           {"name: \"$(touch canary)\"", "name"},
           {"mesh { dp: -1 }", "mesh.dp"},
           {"mesh { tp: 0 }", "mesh.tp"},
           {"mesh { tp: 1000000000 }", "mesh.tp"},
           {"mesh { replicas: 0 }", "mesh.replicas"},
           {"mesh { pp: 2 }", "pipeline"},
           {"sharding { zero: 4 }", "sharding.zero"},
           {"checkpoint { every: -1 }", "checkpoint.every"},
           {"checkpoint { keep: 1 }", "checkpoint.keep"},
           {"evaluate { every: -1 }", "evaluate.every"},
           {"numerics { skip: -1 }", "numerics.skip"},
           {"batch { global: 0 }", "batch.global"},
           {"batch { global: 100000000 }", "batch.global"},
           {"batch { micro: 7 }", "micro"},
           {"model { architecture { layers: 0 } }", "layers"},
           {"model { architecture { layers: 1000000 } }", "layers"},
           {"model { architecture { width: 4611686018427387904 } }", "width"},
           {"model { architecture { heads: -4 } }", "heads"},
           {"model { architecture { family: \"gpt9\" } }", "unknown family"},
           {"model { architecture { dropout: 1 } }", "dropout"},
           {"model { architecture { norm_epsilon: 0 } }", "norm_epsilon"},
           {"parameter_group { pattern: \"\" }", "pattern takes 1 to 1000 characters"},
           {"parameter_group { pattern: \"(\" }", "regular expression"},
           {"parameter_group { pattern: \"" + std::string(100'000, '(') + "\" }", "too long"},
           {"parameter_group { pattern: \"(a?){9999}\" }", "repeats too much"},
           {"parameter_group { pattern: \"((a{99}){99}){99}\" }", "repeats too much"},
           {"parameter_group { pattern: \"(a)\\\\1\" }", "regular expression"},
           {"parameter_group { pattern: \"a\" learning_rate_factor: -1 }", "learning_rate_factor"},
           {"precision: FP16", "FP16"},
           {"reproducible: true", "reproducible"}}) {
    std::string name = line.size() > 80 ? line.substr(0, 80) : line;
    all.push_back({name, words, "# merged over a good recipe\n" + line});
  }
  return all;
}

constexpr std::string_view kMerged = "# merged over a good recipe\n";

void read_recipe_text(const std::string& bytes) {
  Places places("attack.textproto");
  Recipe recipe = parse_recipe(bytes, "attack.textproto", &places);
  std::string written = recipe_text(recipe);
  same(written, recipe_text(parse_recipe(written, "again")), "a recipe");
  if (bytes.starts_with(kMerged)) {
    Recipe whole = parse_recipe(good, "good");
    whole.MergeFrom(recipe);
    recipe = whole;
  }
  resolve(recipe);
  std::string resolved = recipe_text(recipe);
  same(resolved, recipe_text(parse_recipe(resolved, "again")), "a resolved recipe");
  check_recipe(recipe, 1, places);
}

std::vector<Attack> broken_overrides() {
  return {
      {"no path", "no override", "=1"},
      {"no value", "no override", "steps"},
      {"path of dots", "no override", "..=1"},
      {"dot first", "no override", ".steps=1"},
      {"dot last", "no override", "mesh.=1"},
      {"two dots", "no override", "mesh..tp=1"},
      {"digit first", "no override", "1steps=1"},
      {"space in the path", "no override", "mesh tp=1"},
      {"hyphen in the path", "no override", "--steps=1"},
      {"zero byte in the path", "no override", std::string("st\0eps=1", 8)},
      {"path that is no UTF-8", "no override", "\xff=1"},
      {"path of 100,000 bytes", "no override", std::string(100'000, 'a') + "=1"},
      {"path of 100,000 steps", "no override", "a" + repeated(".a", 100'000) + "=1"},
      {"unknown field", "did you mean \"tp\"", "mesh.pt=2"},
      {"path that is no UTF-8", "data.train.path takes UTF-8", "data.train.path=\xff"},
      {"text of a message that is no UTF-8", "is no UTF-8", "parameter_group+=pattern: \"\xff\""},
      {"field of a number", "has no fields", "steps.x=1"},
      {"field of text", "has no fields", "name.x=1"},
      {"parent", "a parent cannot be set here", "parent=/etc/passwd"},
      {"empty number", "takes a whole number", "steps="},
      {"number with a space", "takes a whole number", "steps= 1"},
      {"number with a point", "takes a whole number", "steps=1.5"},
      {"hexadecimal", "takes a whole number", "steps=0x10"},
      {"number of 2^63", "takes a whole number", "steps=9223372036854775808"},
      {"number of 2^31", "takes a whole number", "mesh.dp=2147483648"},
      {"number with more behind", "takes a whole number", "steps=1;touch canary"},
      {"word for a number", "takes a number", "clip_norm=much"},
      {"double beyond all", "takes a number", "clip_norm=1e999"},
      {"word for a truth", "takes true or false", "reproducible=maybe"},
      {"value of no enum", "precision takes FP32", "precision=FP31"},
      {"unknown Part", "no optimizer is named", "optimizer=AdamV"},
      {"Part without a bracket", "optimizer", "optimizer=[echelon/AdamW"},
      {"option of no Part yet", "holds no Part yet", "exchange.rank=4"},
      {"unknown option of a Part", "no field \"beta3\"", "optimizer.beta3=1"},
      {"element of a list that is empty", "a list of 0", "adapter.0.rank=1"},
      {"element below 0", "no override", "parameter_group.-1.pattern=a"},
      {"element of 2^64", "a list of 0", "parameter_group.18446744073709551616.pattern=a"},
      {"list without an element", "a list of 0", "trainable=a"},
      {"addition to a number", "is not a list", "steps+=1"},
      {"message of braces", "model", "model=" + repeated("architecture {", 10'000)},
      {"value of 100,000 bytes", "takes a whole number", "steps=" + std::string(100'000, '1')},
  };
}

void read_override(const std::string& bytes) {
  Recipe recipe = parse_recipe(good, "good");
  Places places("good");
  apply_override(recipe, bytes, places);
  std::string written = recipe_text(recipe);
  same(written, recipe_text(parse_recipe(written, "again")), "an override");
}

}  // namespace

Reader recipe_reader() {
  std::vector<Attack> all = broken_texts(), more = wrong_values();
  all.insert(all.end(), more.begin(), more.end());
  return {"recipe", 3, "attack.textproto", read_recipe_text, all, {good}};
}

Reader override_reader() {
  return {"override",
          3,
          "",
          read_override,
          broken_overrides(),
          {"steps=12", "optimizer.learning_rate=3e-4", "parameter_group+=pattern: \"bias\"", "schedule=WarmupCosine",
           "name=", "data.train.path=a=b c"}};
}

}  // namespace echelon::hostile
