// What every layer of one forward pass needs to know beside its input.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include <ATen/core/Tensor.h>

#include "comm/mesh.h"
#include "sharding/seed.h"

namespace echelon {

class Discarded;
struct KeyValueCache;

/// One forward pass over a batch of B sequences of T tokens. Hidden states are matrices of rows [B * T, D], row b * T +
/// t; between layers each tensor parallel rank holds ceil(B * T / tp) of the rows.
struct Pass {
  const Mesh& mesh;
  int64_t batch = 0, length = 0;
  std::vector<int64_t> samples;    ///< global sample ids [B]
  at::Tensor attention_mask;       ///< [B, T], 0: padding; undefined: none
  bool training = false;           ///< dropout on
  Seed seed{0};                    ///< of (run, step)
  KeyValueCache* cache = nullptr;  ///< generation: keys and values of earlier tokens
  int64_t past = 0;                ///< tokens in the cache, extra keys left out
  int64_t extra_tokens = 0;        ///< of `length`, those that an adapter puts in front of every sequence
  int64_t extra_keys = 0;          ///< keys and values that an adapter puts in front of every sequence

  Discarded* discarded = nullptr;  ///< of the layer that is run: what its backward computes again; null: all is kept

  int64_t rows() const { return batch * length; }
  /// First row that this tensor parallel rank holds, and how many (padding rows at the end included).
  int64_t first_row() const { return rows_held() * mesh.tp().rank(); }
  int64_t rows_held() const { return (rows() + mesh.tp().size() - 1) / mesh.tp().size(); }

  /// Of the keys, where that of the batch's first token stands: its position, in a sequence that begins in the first
  /// column of the cache.
  int64_t first_column() const { return extra_keys + past; }

  /// Dropout of hidden rows held by this rank, keyed by (step, sample, site, position, feature). Identity in
  /// evaluation.
  at::Tensor dropout(const at::Tensor& rows, double rate, std::string_view site) const;
  /// The same for rows [B * T, …] that every rank holds, of whose features this rank's begin at `first_column`.
  at::Tensor dropout_whole(const at::Tensor& rows, double rate, std::string_view site, int64_t first_column) const;

 private:
  at::Tensor dropout_keys(int64_t first_row, int64_t count, std::string_view site) const;
};

}  // namespace echelon
