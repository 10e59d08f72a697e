// What is learnt from a batch.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/batch.h"
#include "models/model.h"

namespace echelon {

/// Ids with a meaning, from the data's meta.json; -1: none.
struct Vocabulary {
  int64_t size = 0;
  int64_t pad = -1, begin = -1, end = -1, mask = -1;
  std::vector<int64_t> special;   ///< never masked, never drawn
};

/// Tokens of some samples, as a Source gave them: [B, T + lookahead] int64.
struct Examples {
  at::Tensor tokens;
  std::vector<int64_t> samples;   ///< global sample ids [B]
};

/// A loss by named terms, each a sum over its targets with its count: never a mean, since ranks hold different counts.
struct Terms {
  struct Term {
    at::Tensor sum;      ///< scalar
    int64_t count = 0;
  };
  std::map<std::string, Term> terms;
};

class Objective {
 public:
  struct Context {
    Vocabulary vocabulary;
  };
  virtual ~Objective() = default;

  /// Tokens behind a sample's T that it also needs (1: the last target of a causal model).
  virtual int64_t lookahead() const = 0;
  /// Whether the model must be causal (or must not be).
  virtual bool causal() const = 0;
  /// Inputs and labels of a micro-step; draws are keyed by `seed` (of run and step) and the sample.
  virtual Batch prepare(const Examples& examples, const Seed& seed) const = 0;
  virtual Terms loss(Model& model, const Batch& batch, const Pass& pass) = 0;
};

}  // namespace echelon
