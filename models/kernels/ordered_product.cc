// Compiled without contraction of a * b + c into one rounding, see CMakeLists.txt.
#include "models/kernels/ordered_product.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

namespace echelon {

at::Tensor ordered_product(const at::Tensor& left, const at::Tensor& right) {
  at::Tensor a = left.to(at::kDouble).contiguous(), b = right.to(at::kDouble).contiguous();
  int64_t inner = a.size(1), columns = b.size(1);
  at::Tensor product = at::zeros({a.size(0), columns}, at::kDouble);
  const double *factors = a.const_data_ptr<double>(), *rows = b.const_data_ptr<double>();
  double* out = product.data_ptr<double>();
  at::parallel_for(0, a.size(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      for (int64_t k = 0; k < inner; ++k) {
        double factor = factors[i * inner + k];
        for (int64_t j = 0; j < columns; ++j) out[i * columns + j] += factor * rows[k * columns + j];
      }
    }
  });
  return product;
}

at::Tensor ordered_row_lengths(const at::Tensor& matrix) {
  return ordered_row_lengths_of_squares(matrix.to(at::kDouble).square());
}

at::Tensor ordered_row_lengths_of_squares(const at::Tensor& squares) {
  at::Tensor rows = squares.contiguous();
  int64_t columns = rows.size(1);
  at::Tensor lengths = at::empty({rows.size(0), 1}, at::kDouble);
  const double* values = rows.const_data_ptr<double>();
  double* out = lengths.data_ptr<double>();
  at::parallel_for(0, rows.size(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < columns; ++j) sum += values[i * columns + j];
      out[i] = std::sqrt(sum);
    }
  });
  return lengths;
}

}  // namespace echelon
