#include "models/interchange/config_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "models/interchange/tensor_list.h"

namespace echelon {

namespace {

constexpr int64_t kLargestSize = std::numeric_limits<int32_t>::max();
constexpr int64_t kMostLayers = 10'000;  // each layer is a dozen names before any tensor is seen
constexpr double kMostElements = 1e14;   // beyond any machine; keeps products of sizes far from overflow

}  // namespace

ConfigReader::ConfigReader(const Json& config, std::string place, Error::Kind kind)
    : config_(config), place_(std::move(place)), kind_(kind) {
  if (!config.is_object()) throw Error(kind_, place_, "not a JSON object").got(config.type_name());
}

int64_t ConfigReader::size(const std::string& key, int64_t otherwise) const {
  return json_integer(config_, key, place_, 1, kLargestSize, otherwise, kind_);
}

int64_t ConfigReader::layers(const std::string& key, int64_t otherwise) const {
  return json_integer(config_, key, place_, 1, kMostLayers, otherwise, kind_);
}

double ConfigReader::rate(const std::string& key, double otherwise) const {
  return json_number(config_, key, place_, 0.0, std::nextafter(1.0, 0.0), otherwise, kind_);
}

double ConfigReader::number(const std::string& key, double min, double max, double otherwise) const {
  return json_number(config_, key, place_, min, max, otherwise, kind_);
}

bool ConfigReader::flag(const std::string& key, bool otherwise) const {
  return has(key) ? json_bool(config_, key, place_, kind_) : otherwise;
}

std::string ConfigReader::text(const std::string& key, const std::string& otherwise) const {
  return json_string(config_, key, place_, otherwise, kind_);
}

Activation ConfigReader::activation(const std::string& key, const std::string& otherwise) const {
  static const std::map<std::string, Activation> known = {
      {"gelu", Activation::gelu}, {"gelu_new", Activation::gelu_tanh}, {"gelu_pytorch_tanh", Activation::gelu_tanh},
      {"silu", Activation::silu}, {"swish", Activation::silu},         {"relu", Activation::relu}};
  std::string name = text(key, otherwise);
  auto found = known.find(name);
  if (found == known.end()) {
    throw mistake(key, "activation is not implemented")
        .got(name)
        .expected("gelu, gelu_new, gelu_pytorch_tanh, silu, swish or relu");
  }
  return found->second;
}

int64_t ConfigReader::padding_id(int64_t vocabulary, int64_t otherwise) const {
  int64_t id = config_.contains("pad_token_id") && !has("pad_token_id")
                   ? -1
                   : json_integer(config_, "pad_token_id", place_, -1, kLargestSize, otherwise, kind_);
  // torch counts a negative index from the end, and the first Llamas were released with -1.
  if (id == -1 && has("pad_token_id")) return vocabulary - 1;
  return id < vocabulary ? id : -1;
}

bool ConfigReader::has(const std::string& key) const {
  auto found = config_.find(key);
  return found != config_.end() && !found->is_null();
}

std::vector<std::string> ConfigReader::texts(const std::string& key) const {
  std::vector<std::string> texts;
  const Json* list = find(key);
  if (!list) return texts;
  bool fits =
      list->is_array() && std::all_of(list->begin(), list->end(), [](const Json& each) { return each.is_string(); });
  if (!fits) throw mistake(key, "wrong type").got(list->type_name()).expected("a list of texts");
  for (const Json& each : *list) texts.push_back(each);
  return texts;
}

std::vector<int64_t> ConfigReader::sizes(const std::string& key) const {
  std::vector<int64_t> sizes;
  const Json* list = find(key);
  if (!list) return sizes;
  auto is_size = [](const Json& each) { return each.is_number_unsigned() && each.get<uint64_t>() <= kLargestSize; };
  if (!list->is_array() || !std::all_of(list->begin(), list->end(), is_size)) {
    throw mistake(key, "wrong type").got(list->type_name()).expected("a list of counts");
  }
  for (const Json& each : *list) sizes.push_back(each);
  return sizes;
}

const Json* ConfigReader::object(const std::string& key) const {
  if (!has(key)) return nullptr;
  const Json& value = config_.at(key);
  if (!value.is_object()) throw mistake(key, "wrong type").got(value.type_name()).expected("an object");
  return &value;
}

ConfigReader ConfigReader::within(const std::string& key) const {
  return {config_.at(key), place_ + ": " + key, kind_};
}

void ConfigReader::require(const std::string& key, const Json& only) const {
  if (!has(key) || config_.at(key) == only) return;
  throw mistake(key, "not implemented")
      .got(dump_json(config_.at(key), {.non_finite_as_null = true}))
      .expected(dump_json(only));
}

void ConfigReader::refuse(const std::string& key) const {
  if (!has(key)) return;
  const Json& value = config_.at(key);
  if (value == false || (value.is_structured() && value.empty())) return;
  throw mistake(key, "not implemented").expected("no such setting");
}

Error ConfigReader::mistake(const std::string& key, std::string what) const {
  return {kind_, place_ + ": " + key, std::move(what)};
}

void check_shape(const Architecture& a, const ConfigReader& config, const std::string& width_key,
                 const std::string& heads_key, const std::string& kv_heads_key) {
  if (a.width % a.heads != 0) {
    throw config.mistake(width_key, "is not a multiple of " + heads_key)
        .got(a.width)
        .expected(fmt::format("a multiple of {}", a.heads));
  }
  if (a.heads % a.kv_heads != 0) {
    throw config.mistake(kv_heads_key, "does not divide " + heads_key)
        .got(a.kv_heads)
        .expected(fmt::format("a divisor of {}", a.heads));
  }
  if (a.positions == Positions::rotary && a.head_width % 2 != 0) {
    throw config.mistake("head_dim", "must be even for rotary positions").got(a.head_width);
  }
  if (double elements = count_elements(a); elements > kMostElements) {
    throw config.mistake(width_key, fmt::format("a model of {:.3g} parameters", elements))
        .expected(fmt::format("at most {:.0g}", kMostElements));
  }
}

}  // namespace echelon
