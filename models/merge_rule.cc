#include "models/merge_rule.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "models/interchange/residue_codec.h"
#include "models/kernels/ordered_product.h"

namespace echelon {

namespace {

constexpr int64_t kElementsAtOnce = 1 << 16;

at::ScalarType integers_like(const at::Tensor& values) {
  return values.element_size() == 8 ? at::kLong : values.element_size() == 4 ? at::kInt : at::kShort;
}

/// Integers in the order of the floating point numbers whose bits they are: neighbours differ by one, -0 and 0 too. Its
/// own inverse on integers.
at::Tensor reordered(const at::Tensor& bits, at::ScalarType type) {
  int64_t smallest = type == at::kLong  ? std::numeric_limits<int64_t>::min()
                     : type == at::kInt ? std::numeric_limits<int32_t>::min()
                                        : std::numeric_limits<int16_t>::min();
  // smallest - 1 - bits without overflow.
  return at::where(bits.lt(0), at::bitwise_not(bits) + smallest, bits);
}

at::Tensor ordered_bits(const at::Tensor& values) {
  at::ScalarType type = integers_like(values);
  return reordered(values.contiguous().view(type).to(at::kLong), type);
}

}  // namespace

int64_t rows_at_once(int64_t columns) { return std::max<int64_t>(1, kElementsAtOnce / std::max<int64_t>(1, columns)); }

at::Tensor MergeRule::scale_of(const Slice& part) const {
  at::Tensor chosen = scale;
  for (int64_t dim = 0; dim < 2; ++dim) {
    if (chosen.size(dim) > 1) chosen = chosen.narrow(dim, part.offsets[dim], part.sizes[dim]);
  }
  return chosen;
}

at::Tensor MergeRule::before_lengths(const at::Tensor& weight, const Slice& part) const {
  at::Tensor sum = weight.to(at::kDouble);
  if (shift) sum = sum + shift(part);
  return scale.defined() ? sum * scale_of(part) : sum;
}

at::Tensor MergeRule::scale_for(const at::Tensor& lengths, int64_t row) const {
  return row_lengths.narrow(0, row, lengths.size(0)) / lengths;
}

at::Tensor MergeRule::merged(const at::Tensor& weight, const Slice& part, at::Tensor* used) const {
  at::Tensor sum = before_lengths(weight, part);
  if (!row_lengths.defined()) return sum;
  if (!used->defined()) *used = scale_for(ordered_row_lengths(sum), part.offsets[0]);
  return sum * *used;
}

at::Tensor MergeRule::restored(const at::Tensor& merged, const Slice& part, const at::Tensor& used) const {
  at::Tensor sum = merged.to(at::kDouble);
  if (row_lengths.defined()) sum = sum / used;
  if (scale.defined()) sum = sum / scale_of(part);
  // A factor of zero leaves nothing to restore from: the residue then holds all of it.
  sum = at::nan_to_num(sum, 0, 0, 0);
  return shift ? sum - shift(part) : sum;
}

bool fold_in(const MergeRule& rule, at::Tensor weight, const Slice& part, at::Tensor* used, ResiduePacker* residue) {
  at::Tensor exact = weight.cpu().contiguous();
  at::Tensor merged = rule.merged(exact, part, used).to(exact.scalar_type());
  bool finite = at::isfinite(merged).all().item<bool>() || !at::isfinite(exact).all().item<bool>();
  if (residue) {
    at::Tensor restored = rule.restored(merged, part, *used).to(exact.scalar_type());
    residue->add(residue_of(exact, restored));
  }
  weight.copy_(merged);
  return finite;
}

Error leaves_range(const std::string& parameter) {
  return Error::numerics(parameter, "leaves the range of its dtype when the adapter is folded in");
}

void take_out(const MergeRule& rule, at::Tensor weight, const Slice& part, const at::Tensor& used,
              const at::Tensor& residue) {
  at::Tensor merged = weight.cpu().contiguous();
  at::Tensor rounded = rule.restored(merged, part, used).to(merged.scalar_type());
  weight.copy_(apply_residue(rounded, residue.view(rounded.sizes())));
}

at::Tensor residue_of(const at::Tensor& exact, const at::Tensor& restored) {
  at::Tensor distance = ordered_bits(exact) - ordered_bits(restored);
  // Wraps around like the addition that undoes it.
  return exact.element_size() == 8 ? distance : distance.to(at::kInt).to(at::kLong);
}

at::Tensor apply_residue(const at::Tensor& restored, const at::Tensor& residue) {
  at::ScalarType type = integers_like(restored);
  at::Tensor sum = (ordered_bits(restored) + residue).to(type).to(at::kLong);
  return reordered(sum, type).to(type).view(restored.scalar_type());
}

}  // namespace echelon
