#include "models/merge_rule.h"

#include <ATen/ATen.h>

#include "models/kernels/ordered_product.h"

namespace echelon {

namespace {

/// Integers in the order of the floating point numbers whose bits they are: neighbours differ by one, -0 and 0 too.
at::Tensor ordered_bits(const at::Tensor& values) {
  bool wide = values.element_size() == 4;
  at::Tensor bits = values.contiguous().view(wide ? at::kInt : at::kShort).to(at::kLong);
  int64_t smallest = wide ? -(int64_t{1} << 31) : -(int64_t{1} << 15);
  return at::where(bits.lt(0), smallest - 1 - bits, bits);
}

at::Tensor values_of(const at::Tensor& ordered, at::ScalarType dtype) {
  bool wide = c10::elementSize(dtype) == 4;
  int64_t smallest = wide ? -(int64_t{1} << 31) : -(int64_t{1} << 15);
  at::Tensor bits = at::where(ordered.lt(0), smallest - 1 - ordered, ordered);
  return bits.to(wide ? at::kInt : at::kShort).view(dtype);
}

}  // namespace

at::Tensor MergeRule::scale_of(int64_t row, int64_t rows) const {
  return scale.size(0) == 1 ? scale : scale.narrow(0, row, rows);
}

at::Tensor MergeRule::merged(const at::Tensor& weight, int64_t row, at::Tensor* used) const {
  at::Tensor sum = weight.to(at::kDouble);
  int64_t rows = weight.size(0);
  if (shift) sum = sum + shift(row, rows);
  if (scale.defined()) sum = sum * scale_of(row, rows);
  if (!row_lengths.defined()) return sum;
  *used = row_lengths.narrow(0, row, rows) / ordered_row_lengths(sum);
  return sum * *used;
}

at::Tensor MergeRule::restored(const at::Tensor& merged, int64_t row, const at::Tensor& used) const {
  at::Tensor sum = merged.to(at::kDouble);
  int64_t rows = merged.size(0);
  if (row_lengths.defined()) sum = sum / used;
  if (scale.defined()) sum = sum / scale_of(row, rows);
  // A factor of zero leaves nothing to restore from: the residue then holds all of it.
  sum = at::nan_to_num(sum, 0, 0, 0);
  return shift ? sum - shift(row, rows) : sum;
}

at::Tensor residue_of(const at::Tensor& exact, const at::Tensor& restored) {
  // Wraps around like the addition that undoes it.
  return (ordered_bits(exact) - ordered_bits(restored)).to(at::kInt);
}

at::Tensor apply_residue(const at::Tensor& restored, const at::Tensor& residue) {
  bool wide = restored.element_size() == 4;
  at::Tensor sum = (ordered_bits(restored) + residue.to(at::kLong)).to(wide ? at::kInt : at::kShort).to(at::kLong);
  return values_of(sum, restored.scalar_type());
}

}  // namespace echelon
