// Multi-head attention with grouped queries, rotary positions, keyed dropout and a key/value cache.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/architecture.h"
#include "models/layers/linear.h"

namespace echelon {

/// Keys and values of all layers for the tokens generated so far, extra ones in front, in one buffer. Sequences end in
/// the same column: shorter ones begin later.
struct KeyValueCache {
  at::Tensor memory;            ///< [layers, 2, B, kv_heads / tp, columns, head]
  std::vector<int64_t> begins;  ///< first column of each sequence [B]; empty: all begin in the first
  at::Tensor attention_mask;    ///< [B, columns], 0: before the begin; undefined with no `begins`
};

/// Projections around attend(); heads are split over `tp`.
class Attention {
 public:
  Attention(Unit& unit, const std::string& name, const Architecture& architecture, int64_t layer);
  /// rows [B * T, D] whole on every rank; the result is this rank's rows [ceil(B * T / tp), D].
  at::Tensor operator()(const at::Tensor& rows, const Pass& pass) const;

  std::vector<Linear*> linears() { return {&query_, &key_, &value_, &output_}; }
  /// `extra` must outlive this; their tokens together are Pass::extra_keys.
  void attach(const ExtraKeysValues& extra) { extras_.push_back(&extra); }

 private:
  at::Tensor rotated(const at::Tensor& x, const Pass& pass) const;
  at::Tensor heads(const Linear& projection, const at::Tensor& rows, const Pass& pass) const;
  void put_extras_in_front(at::Tensor& keys, at::Tensor& values, const Pass& pass) const;
  at::Tensor key_mask(const Pass& pass, int64_t keys) const;
  void remember(at::Tensor& keys, at::Tensor& values, const Pass& pass) const;
  at::Tensor dropout_keys(const Pass& pass, int64_t local_heads) const;

  const Architecture& architecture_;
  std::string name_;
  int64_t layer_;
  Linear query_, key_, value_, output_;
  std::vector<const ExtraKeysValues*> extras_;
};

}  // namespace echelon
