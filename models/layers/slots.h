// Where an adapter enters a model: four small interfaces, each attached to the layer that it changes.
#pragma once

#include <cstdint>
#include <utility>

#include <ATen/core/Tensor.h>

#include "models/layers/pass.h"

namespace echelon {

/// Changes what one Linear computes, y = x Wᵀ + b. Several on one Linear are applied in the order of their attachment.
class Reparam {
 public:
  virtual ~Reparam() = default;
  /// In place of x [N, in or in / tp].
  virtual at::Tensor input(const at::Tensor& x, const Pass& pass) const { return x; }
  /// In place of y = x Wᵀ, without the bias: [N, out or out / tp]; on a row-split Linear this rank's part of a sum.
  virtual at::Tensor product(const at::Tensor& x, const at::Tensor& y, const Pass& pass) const { return y; }
  /// In place of y with its bias: this rank's outputs, or on a row-split Linear this rank's rows.
  virtual at::Tensor output(const at::Tensor& y, const Pass& pass) const { return y; }
};

/// Changes what an Embedding looks up.
class EmbeddingReparam {
 public:
  virtual ~EmbeddingReparam() = default;
  /// In place of y [N, D], looked up for `ids` [N]; on a table split over `tp` this rank's part of a sum.
  virtual at::Tensor output(const at::Tensor& ids, const at::Tensor& entered, const at::Tensor& y) const = 0;
};

/// Keys and values in front of those of the sequence, the same for every sample.
class ExtraKeysValues {
 public:
  virtual ~ExtraKeysValues() = default;
  virtual int64_t tokens() const = 0;
  /// Keys and values [kv_heads / tp, tokens, head_width].
  virtual std::pair<at::Tensor, at::Tensor> keys_values() const = 0;
};

/// Vectors in front of the embedded tokens, the same for every sample.
class ExtraTokens {
 public:
  virtual ~ExtraTokens() = default;
  virtual int64_t tokens() const = 0;
  /// [tokens, D]
  virtual at::Tensor embeddings() const = 0;
};

/// Changes what attention or feed-forward adds to the residual stream.
class Branch {
 public:
  virtual ~Branch() = default;
  /// In place of `output`, given the sublayer's `input`; both this rank's rows [ceil(B * T / tp), D].
  virtual at::Tensor output(const at::Tensor& input, const at::Tensor& output, const Pass& pass) const = 0;
};

}  // namespace echelon
