// The input of one micro-step.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace echelon {

/// Named input tensors of one micro-step, with its count of targets.
///
/// Names are Hugging Face's: `input_ids` [B, T] int64, `attention_mask` [B, T] (1: a token, 0: padding),
/// `token_type_ids`; `labels` [B, T] int64 is aligned with the logits (row t is what position t predicts), -100: no
/// target.
struct Batch {
  std::map<std::string, at::Tensor> tensors;
  std::vector<int64_t> samples;  ///< global sample ids [B]: keys of random draws
  int64_t targets = 0;           ///< labels that are not -100

  bool has(const std::string& name) const { return tensors.contains(name); }
  const at::Tensor& at(const std::string& name) const { return tensors.at(name); }
  /// The same with its tensors on `device`.
  Batch on(at::Device device) const;
  int64_t size() const;    ///< B
  int64_t length() const;  ///< T
};

}  // namespace echelon
