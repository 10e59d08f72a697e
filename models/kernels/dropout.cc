#include "models/kernels/dropout.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include "models/kernels/dropout_hash.h"
#include "models/kernels/dropout_kernel.h"

namespace echelon {

uint32_t dropped_below(double rate) { return static_cast<uint32_t>(std::min(rate * 0x1.0p32, 0x1.0p32 - 1)); }

namespace {

// One row's decisions, a loop that the compiler vectorises. 1: keep.
__attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"))) void keep_row(
    uint32_t* keep, int64_t columns, uint64_t key, uint32_t first_column, uint32_t threshold) {
  uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32);
  for (int64_t c = 0; c < columns; ++c) {
    keep[c] = dropout_hash(low, high, first_column + static_cast<uint32_t>(c)) >= threshold;
  }
}

at::Tensor dropped_here(const at::Tensor& rows, const at::Tensor& row_keys, double rate, int64_t first_column) {
  at::Tensor out = at::empty_like(rows);
  int64_t columns = rows.size(1);
  uint32_t threshold = dropped_below(rate);
  const int64_t* keys = row_keys.const_data_ptr<int64_t>();
  AT_DISPATCH_FLOATING_TYPES_AND(at::kBFloat16, rows.scalar_type(), "keyed_dropout", [&] {
    const scalar_t* in = rows.const_data_ptr<scalar_t>();
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    using Wide = at::opmath_type<scalar_t>;
    Wide scale = static_cast<Wide>(1.0 / (1.0 - rate));
    at::parallel_for(
        0, rows.size(0), std::max<int64_t>(1, 16384 / std::max<int64_t>(1, columns)), [&](int64_t begin, int64_t end) {
          std::vector<uint32_t> keep(columns);
          for (int64_t r = begin; r < end; ++r) {
            keep_row(keep.data(), columns, static_cast<uint64_t>(keys[r]), static_cast<uint32_t>(first_column),
                     threshold);
            for (int64_t c = 0; c < columns; ++c) {
              to[r * columns + c] =
                  keep[c] ? static_cast<scalar_t>(static_cast<Wide>(in[r * columns + c]) * scale) : scalar_t(0);
            }
          }
        });
  });
  return out;
}

at::Tensor dropped_there(const at::Tensor& rows, const at::Tensor& row_keys, double rate, int64_t first_column) {
  at::Tensor out = at::empty_like(rows);
  DropoutRows dropout{row_keys.const_data_ptr<int64_t>(),  rows.size(0),        rows.size(1),
                      static_cast<uint32_t>(first_column), dropped_below(rate), 1.0 / (1.0 - rate)};
  auto run = [&]<class T>(T*) {
    gpu::dropout_rows(dropout, static_cast<const T*>(rows.const_data_ptr()), static_cast<T*>(out.data_ptr()));
  };
  if (rows.scalar_type() == at::kDouble) run(static_cast<double*>(nullptr));
  if (rows.scalar_type() == at::kFloat) run(static_cast<float*>(nullptr));
  if (rows.scalar_type() == at::kBFloat16) run(static_cast<Bfloat16*>(nullptr));
  return out;
}

}  // namespace

at::Tensor keyed_dropout(const at::Tensor& rows, const at::Tensor& row_keys, double rate, int64_t first_column) {
  if (rate <= 0) return rows;
  if (rows.is_cpu()) return dropped_here(rows, row_keys, rate, first_column);
  if (kGpuKernels) return dropped_there(rows, row_keys.to(rows.device()), rate, first_column);
  return dropped_here(rows.cpu(), row_keys.cpu(), rate, first_column).to(rows.device());
}

}  // namespace echelon
