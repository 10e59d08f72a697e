// How an adapter becomes part of a base tensor for good, and how it is taken out again.
#pragma once

#include <functional>
#include <string>

#include <ATen/core/Tensor.h>

namespace echelon {

/// merged = (W + shift) ∘ scale, in float64, element by element and in a fixed order of summation: the same bits
/// everywhere.
struct MergeRule {
  std::string parameter;                                       ///< name of the base's tensor
  std::function<at::Tensor(int64_t row, int64_t rows)> shift;  ///< of these rows; empty: none
  at::Tensor scale;                                            ///< broadcasts to W; undefined: none
  at::Tensor row_lengths;  ///< DoRA's magnitudes [out, 1]: scale = these / lengths of W + shift

  /// Of rows from `row` on. `used` is given the scale where it depends on W.
  at::Tensor merged(const at::Tensor& weight, int64_t row, at::Tensor* used) const;
  /// The inverse but for rounding; `used` as merged() gave it for these rows.
  at::Tensor restored(const at::Tensor& merged, int64_t row, const at::Tensor& used) const;

 private:
  at::Tensor scale_of(int64_t row, int64_t rows) const;
};

/// What rounding took away: the distance of `exact` from `restored` in units of the last place, of the same dtype
/// (float32, bfloat16 or float16), as int32. apply_residue() is its inverse.
at::Tensor residue_of(const at::Tensor& exact, const at::Tensor& restored);
at::Tensor apply_residue(const at::Tensor& restored, const at::Tensor& residue);

}  // namespace echelon
