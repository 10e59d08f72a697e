#include "models/interchange/family.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "cluster/base/text.h"

namespace echelon {

namespace {

const std::array kFamilies = {bert_family, gpt2_family, llama_family};

/// "layers.12.attention" as "layers.L.attention" and "12".
struct Pattern {
  std::string text, layer;
};

Pattern pattern_of(const std::string& tensor) {
  constexpr std::string_view prefix = "layers.";
  if (!tensor.starts_with(prefix)) return {tensor, ""};
  size_t end = tensor.find('.', prefix.size());
  return {"layers.L" + tensor.substr(end), tensor.substr(prefix.size(), end - prefix.size())};
}

std::string with_layer(std::string_view pattern, const std::string& layer) {
  std::string name(pattern);
  size_t at = name.find(".L.");
  return at == std::string::npos ? name : name.replace(at + 1, 1, layer);
}

}  // namespace

std::vector<int64_t> TensorPlace::stored_sizes(std::vector<int64_t> sizes) const {
  if (transposed) std::swap(sizes[0], sizes[1]);
  sizes.back() *= parts;
  return sizes;
}

std::vector<TensorPlace> Family::places(const std::string& tensor) const {
  Pattern whole = pattern_of(tensor);
  size_t dot = whole.text.rfind('.');
  std::string stem = whole.text.substr(0, dot), suffix = whole.text.substr(dot);
  std::vector<TensorPlace> found;
  for (const NameRule& rule : names) {
    bool names_whole = rule.ours == whole.text;
    if (!names_whole && rule.ours != stem) continue;
    std::string name = with_layer(rule.theirs, whole.layer) + (names_whole ? "" : suffix);
    found.push_back({name, rule.transposed && suffix == ".weight", rule.part, rule.parts, rule.only_untied});
  }
  if (found.empty()) throw Error::internal(tensor, model_type + " has no such tensor");
  return found;
}

bool Family::is_head_class(const std::string& name) const {
  return name == head_class || std::find(wider_classes.begin(), wider_classes.end(), name) != wider_classes.end();
}

std::vector<std::string> model_families() {
  std::vector<std::string> names;
  for (auto family : kFamilies) names.push_back(family().model_type);
  return names;
}

const Family& find_family(const std::string& model_type, const std::string& place, Error::Kind kind) {
  for (auto family : kFamilies) {
    if (family().model_type == model_type) return family();
  }
  throw Error(kind, place, fmt::format("unknown family \"{}\"", model_type))
      .expected(fmt::format("one of {}", fmt::join(model_families(), ", ")))
      .remedy(did_you_mean(model_type, model_families()));
}

Json or_null(const std::optional<int64_t>& value) { return value ? Json(*value) : Json(nullptr); }

}  // namespace echelon
