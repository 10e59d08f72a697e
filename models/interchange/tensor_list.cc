#include "models/interchange/tensor_list.h"

#include <fmt/format.h>

namespace echelon {

namespace {

class Lister {
 public:
  explicit Lister(const Architecture& architecture) : a_(architecture) {}

  std::vector<NamedShape> tensors;

  void embeddings() {
    matrix("embeddings.tokens", a_.vocabulary, a_.width);
    if (a_.positions == Positions::learned) matrix("embeddings.positions", a_.max_positions, a_.width);
    if (a_.token_types > 0) matrix("embeddings.types", a_.token_types, a_.width);
    if (a_.embedding_norm) norm("embeddings.norm");
  }

  void layer(const std::string& name) {
    int64_t queries = a_.heads * a_.head_width, keys = a_.kv_heads * a_.head_width;
    norm(name + ".attention_norm");
    linear(name + ".attention.query", queries, a_.width, a_.attention_bias);
    linear(name + ".attention.key", keys, a_.width, a_.attention_bias);
    linear(name + ".attention.value", keys, a_.width, a_.attention_bias);
    linear(name + ".attention.output", a_.width, queries, a_.attention_output_bias);
    norm(name + ".feed_forward_norm");
    if (a_.gated) linear(name + ".feed_forward.gate", a_.feed_forward, a_.width, a_.feed_forward_bias);
    linear(name + ".feed_forward.up", a_.feed_forward, a_.width, a_.feed_forward_bias);
    linear(name + ".feed_forward.down", a_.width, a_.feed_forward, a_.feed_forward_bias);
  }

  void head() {
    if (a_.final_norm) norm("final_norm");
    if (a_.pooler) linear("pooler", a_.width, a_.width, true);
    if (!a_.head) return;
    if (a_.head_transform) {
      linear("head.transform", a_.width, a_.width, true);
      norm("head.norm");
    }
    if (!a_.tied) matrix("head", a_.vocabulary, a_.width);
    if (a_.head_bias) tensors.push_back({"head.bias", {a_.vocabulary}});
  }

 private:
  void matrix(const std::string& name, int64_t rows, int64_t columns) {
    tensors.push_back({name + ".weight", {rows, columns}});
  }
  void linear(const std::string& name, int64_t outputs, int64_t inputs, bool bias) {
    matrix(name, outputs, inputs);
    if (bias) tensors.push_back({name + ".bias", {outputs}});
  }
  void norm(const std::string& name) {
    tensors.push_back({name + ".weight", {a_.width}});
    if (a_.norm == Norm::layer) tensors.push_back({name + ".bias", {a_.width}});
  }

  const Architecture& a_;
};

double elements_of(const std::vector<NamedShape>& tensors) {
  double sum = 0;
  for (const NamedShape& tensor : tensors) {
    double product = 1;
    for (int64_t size : tensor.sizes) product *= static_cast<double>(size);
    sum += product;
  }
  return sum;
}

}  // namespace

std::vector<NamedShape> tensors_of(const Architecture& architecture) {
  Lister lister(architecture);
  lister.embeddings();
  for (int64_t layer = 0; layer < architecture.layers; ++layer) lister.layer(fmt::format("layers.{}", layer));
  lister.head();
  return std::move(lister.tensors);
}

double count_elements(const Architecture& architecture) {
  Lister once(architecture), block(architecture);
  once.embeddings();
  once.head();
  block.layer("layers.0");
  return elements_of(once.tensors) + static_cast<double>(architecture.layers) * elements_of(block.tensors);
}

bool is_head_tensor(const std::string& name) { return name.starts_with("head.") || name.starts_with("pooler."); }

}  // namespace echelon
