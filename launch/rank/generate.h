// `echelon-rank generate`: continues prompts, token by token.
#pragma once

#include <cstdint>
#include <vector>

#include "launch/options/arguments.h"
#include "models/model.h"

namespace echelon {

struct SamplingOptions {
  int64_t max_new_tokens = 64;
  double temperature = 0;  ///< 0: the likeliest token
  double top_p = 1;        ///< draw from the likeliest tokens that hold this share of probability
  int64_t seed = 0;
  std::vector<int64_t> ends;  ///< generation stops behind any of these
};

/// Each prompt and what follows, up to max_new_tokens or the model's positions; prompt i is drawn as it would be alone
/// with the seed + i. All go on together: keys and values of earlier tokens are kept in one buffer. Every rank computes
/// the same; the ranks of a mesh agree on each token. Collective.
std::vector<std::vector<int64_t>> generate(Model& model, const Mesh& mesh,
                                           const std::vector<std::vector<int64_t>>& prompts,
                                           const SamplingOptions& options);

/// The next token for logits [V], drawn by `uniform` in [0, 1).
int64_t choose(const at::Tensor& logits, double temperature, double top_p, double uniform);

}  // namespace echelon
