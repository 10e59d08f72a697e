// Values that differ on every rank, and what their sums must be, computed without the code under test.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

namespace echelon::testing {

/// Elements `begin` and following of a tensor of rank `rank`; sums over ranks depend on the order of summation.
inline at::Tensor values(int rank, int64_t elements, at::ScalarType dtype, int salt = 0, int64_t begin = 0) {
  // Drawn once: the suites compare many millions of elements.
  static const at::Tensor table = at::arange(1 << 22, at::kDouble).mul_(12.9898).sin_().mul_(43758.5453);
  at::Tensor x = table.narrow(0, 1009 * rank + 10'007 * salt + begin, elements);
  if (!at::isFloatingType(dtype)) return x.mul(1e6).to(at::kLong).to(dtype);
  return x.to(dtype, /*non_blocking=*/false, /*copy=*/true);
}

/// The same elements of all ranks, in rank order.
inline std::vector<at::Tensor> values_of_all(int ranks, int64_t elements, at::ScalarType dtype, int salt = 0,
                                             int64_t begin = 0) {
  std::vector<at::Tensor> all;
  for (int rank = 0; rank < ranks; ++rank) all.push_back(values(rank, elements, dtype, salt, begin));
  return all;
}

inline at::ScalarType wide(at::ScalarType dtype) { return dtype == at::kBFloat16 ? at::kFloat : dtype; }

/// While it lives, sums over all `ranks` are expected to be sums of sums over so many neighbours.
class NeighboursFirst {
 public:
  NeighboursFirst(size_t neighbours, size_t ranks) { now() = {neighbours, ranks}; }
  ~NeighboursFirst() { now() = {}; }
  static size_t among(size_t ranks) { return ranks == now().ranks ? now().neighbours : 1; }

 private:
  struct Order {
    size_t neighbours = 1, ranks = 0;
  };
  static Order& now() {
    static Order order;
    return order;
  }
};

/// Sum in the order of the nodes and in rank order inside them, in float32 for bfloat16; not yet rounded.
inline at::Tensor wide_sum(const std::vector<at::Tensor>& all) {
  size_t neighbours = NeighboursFirst::among(all.size());
  at::Tensor sum;
  for (size_t first = 0; first < all.size(); first += neighbours) {
    at::Tensor part = all[first].to(wide(all[first].scalar_type()), /*non_blocking=*/false, /*copy=*/true);
    for (size_t rank = first + 1; rank < first + neighbours; ++rank) part.add_(all[rank].to(part.scalar_type()));
    sum = sum.defined() ? sum.add_(part) : part;
  }
  return sum;
}

inline at::Tensor sum_of(const std::vector<at::Tensor>& all) { return wide_sum(all).to(all[0].scalar_type()); }

/// Bit by bit, and says where not. Either may lie on a GPU.
inline ::testing::AssertionResult same_bits(const at::Tensor& got_there, const at::Tensor& expected_there) {
  at::Tensor got = got_there.cpu(), expected = expected_there.cpu();
  if (got.sizes() != expected.sizes() || got.scalar_type() != expected.scalar_type()) {
    return ::testing::AssertionFailure() << got.toString() << " " << got.sizes() << " instead of "
                                         << expected.toString() << " " << expected.sizes();
  }
  at::Tensor whole = got.contiguous(), whole_expected = expected.contiguous();
  if (whole.nbytes() == 0 || std::memcmp(whole.const_data_ptr(), whole_expected.const_data_ptr(), whole.nbytes()) == 0)
    return ::testing::AssertionSuccess();
  at::Tensor a = whole.view(-1).view(at::kByte), b = whole_expected.view(-1).view(at::kByte);
  int64_t byte = at::argmax(a.ne(b).to(at::kInt)).item<int64_t>();
  int64_t element = byte / static_cast<int64_t>(got.element_size());
  return ::testing::AssertionFailure() << "element " << element << " of " << got.numel() << " is "
                                       << got.reshape(-1)[element].item<double>() << " instead of "
                                       << expected.reshape(-1)[element].item<double>();
}

/// Whether `got` is the sum of `all`, which is `expected` on processors. GPUs add in an order of their own, and round
/// after every addition: there, within that.
inline ::testing::AssertionResult is_sum(const at::Tensor& got, const std::vector<at::Tensor>& all,
                                         const at::Tensor& expected) {
  if (got.is_cpu() || !got.is_floating_point()) return same_bits(got, expected);
  at::Tensor exact = at::zeros(got.sizes(), at::kDouble), room = exact.clone();
  for (const at::Tensor& each : all) {
    exact.add_(each.to(at::kDouble));
    room.add_(each.to(at::kDouble).abs());
  }
  // A unit of the sum's last place for each addition.
  double unit = got.scalar_type() == at::kBFloat16 ? 0x1p-8 : got.scalar_type() == at::kFloat ? 0x1p-24 : 0x1p-53;
  at::Tensor off = got.cpu().to(at::kDouble).sub(exact).abs().sub(room.mul(unit * static_cast<double>(all.size())));
  if (off.numel() == 0 || off.max().item<double>() <= 0) return ::testing::AssertionSuccess();
  int64_t at = off.argmax().item<int64_t>();
  return ::testing::AssertionFailure() << "element " << at << " is " << got.view(-1)[at].item<double>()
                                       << " instead of " << exact.view(-1)[at].item<double>();
}
inline ::testing::AssertionResult is_sum(const at::Tensor& got, const std::vector<at::Tensor>& all) {
  return is_sum(got, all, sum_of(all));
}

}  // namespace echelon::testing
