// How an adapter becomes part of a base tensor for good, and how it is taken out again.
#pragma once

#include <functional>
#include <string>

#include <ATen/core/Tensor.h>

#include "cluster/base/error.h"
#include "sharding/layout.h"

namespace echelon {

class ResiduePacker;

/// merged = (W + shift) ∘ scale, in float64, element by element and in a fixed order of summation: the same bits
/// everywhere, and of any part the same as of the whole. W is a matrix [out, in]; a vector is a matrix of one column.
struct MergeRule {
  std::string parameter;                               ///< name of the base's tensor
  std::function<at::Tensor(const Slice& part)> shift;  ///< of this part; empty: none
  at::Tensor scale;                                    ///< broadcasts to W; undefined: none
  at::Tensor row_lengths;  ///< DoRA's magnitudes [out, 1]: scale = these / lengths of W + shift

  /// Of `weight`, the part `part` of W. `used` is the rows' scale where it depends on W: given for rows of which this
  /// is not all, else left here.
  at::Tensor merged(const at::Tensor& weight, const Slice& part, at::Tensor* used) const;
  /// The inverse but for rounding; `used` as merged() had it for these rows.
  at::Tensor restored(const at::Tensor& merged, const Slice& part, const at::Tensor& used) const;

  /// (W + shift) ∘ scale without what depends on lengths.
  at::Tensor before_lengths(const at::Tensor& weight, const Slice& part) const;
  /// What rows from `row` on whose lengths [rows, 1] are `lengths` are scaled by.
  at::Tensor scale_for(const at::Tensor& lengths, int64_t row) const;

 private:
  at::Tensor scale_of(const Slice& part) const;
};

/// Folds `rule` into `weight`, the part `part` of its parameter, in place and rounded to its dtype. `used` as of
/// MergeRule::merged; what rounding took away goes to `residue`, unless that is null. False: a finite value left the
/// range of the dtype.
bool fold_in(const MergeRule& rule, at::Tensor weight, const Slice& part, at::Tensor* used, ResiduePacker* residue);
/// What to throw then.
Error leaves_range(const std::string& parameter);
/// Undoes it bit by bit; `residue` int64, as flat as the elements of `weight`.
void take_out(const MergeRule& rule, at::Tensor weight, const Slice& part, const at::Tensor& used,
              const at::Tensor& residue);

/// What rounding took away: the distance of `exact` from `restored` in units of the last place, of the same floating
/// point dtype, as int64. apply_residue() is its inverse.
at::Tensor residue_of(const at::Tensor& exact, const at::Tensor& restored);
at::Tensor apply_residue(const at::Tensor& restored, const at::Tensor& residue);

/// Rows of a matrix of so many columns that are folded in at once: few enough that what float64 needs beside the matrix
/// is small.
int64_t rows_at_once(int64_t columns);

}  // namespace echelon
