// Tables of vectors, looked up by id.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/layers/slots.h"
#include "sharding/unit.h"

namespace echelon {

/// Rows of a table [rows, D]. With Split::row of the vocabulary over `tp`, each rank looks up the ids that it holds and
/// the partial results are reduce-scattered; without, every rank holds the whole table and looks up the rows that it
/// holds. Row `padding_id`, if there is one, learns nothing from being looked up.
class Embedding {
 public:
  Embedding(Unit& unit, const std::string& name, int64_t rows, int64_t width, double standard_deviation, bool split,
            int64_t padding_id = -1);

  /// ids [B * T] on every rank; the result is this rank's rows [ceil(B * T / tp), D]. `entered` is Unit::enter's
  /// scalar.
  at::Tensor operator()(const at::Tensor& ids, const at::Tensor& entered, const Pass& pass) const;

  /// "embeddings.tokens"
  const std::string& name() const { return name_; }
  Unit& unit() const { return unit_; }
  const Parameter& weight() const { return *weight_; }
  /// `reparam` must outlive this.
  void attach(const EmbeddingReparam& reparam) { reparams_.push_back(&reparam); }
  void detach_all() { reparams_.clear(); }

 private:
  std::string name_;
  Unit& unit_;
  std::vector<const EmbeddingReparam*> reparams_;
  bool split_;
  int64_t padding_id_;
  Parameter* weight_;
};

/// Rows of `table` for ids [N], [N, columns]; ids of which this rank holds no row give zeros. Row `padding_id` learns
/// nothing.
at::Tensor look_up(const at::Tensor& ids, const at::Tensor& entered, const Parameter& table, int64_t padding_id = -1);

}  // namespace echelon
