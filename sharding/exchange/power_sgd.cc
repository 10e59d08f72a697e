// Low-rank gradients with error feedback.
#include <algorithm>
#include <map>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "cluster/base/pattern.h"
#include "cluster/base/registry.h"
#include "sharding/error_feedback.h"
#include "sharding/exchange/power_sgd.pb.h"
#include "sharding/flat_shard.h"

namespace echelon {

namespace {

/// A tensor as a matrix: dim 0 by all others.
struct Shape {
  int64_t rows, columns;

  static Shape of(const Slice& slice) {
    int64_t rows = slice.sizes.empty() ? 1 : slice.sizes[0];
    return {rows, rows == 0 ? 0 : slice.elements() / rows};
  }
  int64_t elements() const { return rows * columns; }
};

/// One parameter of a shard and how it travels.
struct Matrix {
  const Parameter* parameter;
  Shape shape;
  int64_t rank;  ///< 0: exactly
  at::Tensor q;  ///< [columns, rank], of the last step; afterwards of this one

  /// Elements that travel first (P, or the whole) and then (Q).
  int64_t first() const { return rank > 0 ? shape.rows * rank : shape.elements(); }
  int64_t second() const { return shape.columns * rank; }
  at::Tensor in(const at::Tensor& flat) const {
    return flat.narrow(0, parameter->offset(), shape.elements()).view({shape.rows, shape.columns});
  }
};

/// Cuts a flat tensor into consecutive matrices.
class Cutter {
 public:
  explicit Cutter(const at::Tensor& flat) : flat_(flat) {}
  at::Tensor next(int64_t rows, int64_t columns) {
    at::Tensor part = flat_.narrow(0, begin_, rows * columns).view({rows, columns});
    begin_ += rows * columns;
    return part;
  }

 private:
  at::Tensor flat_;
  int64_t begin_ = 0;
};

/// An orthonormal basis whose span holds the columns' [rows, rank]; whole also where they are dependent or zero.
at::Tensor orthonormal(const at::Tensor& columns) { return std::get<0>(at::linalg_qr(columns, "reduced")); }

/// Elements of P Qᵀ from `begin` on, as many as `out` takes. Each is summed in the order of the rank, so that it has the
/// same bits whatever part of the matrix is asked for: a library's product rounds by shape and alignment.
template <class Real>
void multiply(const at::Tensor& p, const at::Tensor& q_transposed, int64_t begin, const at::Tensor& out) {
  int64_t rank = p.size(1), columns = q_transposed.size(1), end = begin + out.numel();
  const Real *of_p = p.const_data_ptr<Real>(), *of_q = q_transposed.const_data_ptr<Real>();
  Real* of_out = out.data_ptr<Real>();
  int64_t grain = 1 + (1 << 15) / (rank * columns);
  at::parallel_for(begin / columns, (end + columns - 1) / columns, grain, [&](int64_t first_row, int64_t last_row) {
    for (int64_t row = first_row; row < last_row; ++row) {
      int64_t from = std::max(begin, row * columns), count = std::min(end, (row + 1) * columns) - from;
      Real* sums = of_out + (from - begin);
      std::fill_n(sums, count, Real(0));
      for (int64_t r = 0; r < rank; ++r) {
        const Real* factors = of_q + r * columns + (from - row * columns);
        for (int64_t j = 0; j < count; ++j) sums[j] += of_p[row * rank + r] * factors[j];
      }
    }
  });
}

class LowRankSum : public ErrorFeedback {
 public:
  LowRankSum(const PowerSgd& options, const Seed& seed)
      : ErrorFeedback(options.between_nodes_only(), options.exact_steps()),
        options_(options),
        seed_(seed.with("power_sgd")) {
    if (options.rank() < 1)
      throw Error::recipe("exchange.rank", "PowerSgd needs a rank of at least 1").got(options.rank());
    for (const PowerSgd::Override& each : options.override()) add(each);
  }

  std::map<std::string, at::Tensor> warm_start(FlatShard& shard) override {
    std::map<std::string, at::Tensor> starts;
    for (const Matrix& matrix : matrices_of(shard)) {
      if (matrix.rank > 0) starts[matrix.parameter->name()] = matrix.q;
    }
    return starts;
  }

  bool sums_updates() const override {
    if (!between_nodes_only()) return true;
    throw Error::recipe("exchange.exchange.between_nodes_only",
                        "updates travel between replicas, whatever their nodes");
  }
  void sum_updates(const Reduction& reduction) override {
    at::Tensor rest = residual(reduction.shard);
    send_low_rank(reduction, rest.add_(reduction.gradient));
  }

  int64_t bytes_kept(const FlatShard& shard, const Placement& placement) const override {
    int64_t elements = 0;
    for (const Matrix& matrix : plan(shard, 0, placement.tp)) elements += matrix.second();
    return ErrorFeedback::bytes_kept(shard, placement) + elements * placement.element_bytes;
  }

 protected:
  int64_t approximate_bytes_sent(const FlatShard& shard, const Placement& placement) const override {
    RouteBytes route(shard, placement, between_nodes_only());
    if (route.senders == 1) return route.inside_nodes + route.gather;
    int64_t elements = 0;
    for (int tp_rank = 0; tp_rank < placement.tp; ++tp_rank) {
      for (const Matrix& matrix : plan(shard, tp_rank, placement.tp)) elements += matrix.first() + matrix.second();
    }
    return route.inside_nodes + 2 * (placement.dp - 1) * elements * placement.element_bytes;
  }

  void send(const Reduction& reduction, const Route&, at::Tensor& rest) override { send_low_rank(reduction, rest); }

 private:
  void send_low_rank(const Reduction& reduction, at::Tensor& rest) {
    // Products are linear: ranks that hold parts of their node's sum, and zeros, add up to it whatever the route.
    std::vector<Matrix>& matrices = matrices_of(reduction.shard);
    std::vector<at::Tensor> first = sum_first(reduction, matrices, rest);
    sum_second(reduction, matrices, first, rest);
    reduction.owned.zero_();
    for (const Segment& segment : reduction.shard.segments()) rebuild(segment, matrices, first, reduction.owned);
  }

  void add(const PowerSgd::Override& each) {
    if (each.rank() < 0) throw Error::recipe("exchange.override.rank", "is below 0").got(each.rank());
    overrides_.emplace_back(Pattern(each.pattern(), "exchange.override.pattern"), each.rank());
  }

  int64_t rank_of(const Parameter& parameter, const Shape& shape) const {
    if (!parameter.is_matrix()) return 0;
    int64_t rank = options_.rank();
    auto found = std::find_if(overrides_.begin(), overrides_.end(),
                              [&](const auto& each) { return each.first.matches_in(parameter.name()); });
    if (found != overrides_.end()) rank = found->second;
    rank = std::min({rank, shape.rows, shape.columns});
    auto sent = static_cast<double>((shape.rows + shape.columns) * rank);
    return static_cast<double>(shape.elements()) < options_.minimum_saving() * sent ? 0 : rank;
  }

  std::vector<Matrix> plan(const FlatShard& shard, int tp_rank, int tp_size) const {
    std::vector<Matrix> matrices;
    for (const Parameter* parameter : shard.parameters()) {
      Shape shape = Shape::of(parameter->layout().local(tp_rank, tp_size));
      matrices.push_back({parameter, shape, rank_of(*parameter, shape), {}});
    }
    return matrices;
  }

  std::vector<Matrix>& matrices_of(FlatShard& shard) {
    auto [found, added] = matrices_.try_emplace(&shard);
    if (!added) return found->second;
    const Group& tp = shard.zero().mesh.tp();
    found->second = plan(shard, tp.rank(), tp.size());
    for (Matrix& matrix : found->second) {
      if (matrix.rank > 0) matrix.q = start_of(matrix).to(shard.gradient().options());
    }
    return found->second;
  }

  at::Tensor start_of(const Matrix& matrix) const {
    std::vector<int64_t> sizes{matrix.shape.columns, matrix.rank};
    return keyed_normal(seed_.with(matrix.parameter->name()), sizes, Slice::whole(sizes));
  }

  /// P = M Q, summed over the ranks and made orthonormal; tensors that travel exactly are summed, and leave no rest.
  static std::vector<at::Tensor> sum_first(const Reduction& reduction, const std::vector<Matrix>& matrices,
                                           at::Tensor& rest) {
    int64_t elements = 0;
    for (const Matrix& matrix : matrices) elements += matrix.first();
    at::Tensor sums = at::empty({elements}, rest.options());
    std::vector<at::Tensor> parts;
    Cutter cutter(sums);
    for (const Matrix& matrix : matrices) {
      at::Tensor m = matrix.in(rest);
      parts.push_back(cutter.next(matrix.shape.rows, matrix.first() / std::max<int64_t>(1, matrix.shape.rows)));
      if (matrix.rank > 0) {
        at::mm_out(parts.back(), m, matrix.q);
      } else {
        parts.back().copy_(m);
        m.zero_();
      }
    }
    sum(reduction, sums);
    for (size_t i = 0; i < matrices.size(); ++i) {
      if (matrices[i].rank > 0) parts[i] = orthonormal(parts[i]);
    }
    return parts;
  }

  /// Q = Mᵀ P, summed over the ranks; what this rank's own P Qᵀ leaves out of M stays in `rest`.
  static void sum_second(const Reduction& reduction, std::vector<Matrix>& matrices,
                         const std::vector<at::Tensor>& first, at::Tensor& rest) {
    int64_t elements = 0;
    for (const Matrix& matrix : matrices) elements += matrix.second();
    if (elements == 0) return;
    at::Tensor sums = at::empty({elements}, rest.options());
    Cutter cutter(sums);
    for (size_t i = 0; i < matrices.size(); ++i) {
      if (matrices[i].rank == 0) continue;
      at::Tensor m = matrices[i].in(rest), q = cutter.next(matrices[i].shape.columns, matrices[i].rank);
      at::mm_out(q, m.t(), first[i]);
      m.addmm_(first[i], q.t(), /*beta=*/1, /*alpha=*/-1);
    }
    sum(reduction, sums);
    Cutter summed(sums);
    for (Matrix& matrix : matrices) {
      // Memory of its own, as after a resume: products may round by how their operands are aligned.
      if (matrix.rank > 0) matrix.q = summed.next(matrix.shape.columns, matrix.rank).clone();
    }
  }

  static void sum(const Reduction& reduction, at::Tensor& sums) {
    Call call{.name = reduction.shard.name(), .purpose = reduction.purpose};
    reduction.shard.zero().mesh.dp().all_reduce(sums, call).wait();
  }

  /// Of P Qᵀ, or of what travelled exactly, what this rank owns.
  static void rebuild(const Segment& segment, const std::vector<Matrix>& matrices, const std::vector<at::Tensor>& first,
                      const at::Tensor& owned) {
    auto matrix = std::find_if(matrices.begin(), matrices.end(),
                               [&](const Matrix& m) { return m.parameter == segment.parameter; });
    const at::Tensor& sums = first[static_cast<size_t>(matrix - matrices.begin())];
    at::Tensor place = owned.narrow(0, segment.offset, segment.length);
    if (matrix->rank == 0) {
      place.copy_(sums.view({-1}).narrow(0, segment.begin, segment.length));
      return;
    }
    if (!place.is_cpu()) return rebuild_rows(segment, sums, matrix->q, place);
    at::Tensor p = sums.contiguous(), q_transposed = matrix->q.t().contiguous();
    p.scalar_type() == at::kDouble ? multiply<double>(p, q_transposed, segment.begin, place)
                                   : multiply<float>(p, q_transposed, segment.begin, place);
  }

  static void rebuild_rows(const Segment& segment, const at::Tensor& p, const at::Tensor& q, const at::Tensor& place) {
    int64_t columns = q.size(0), begin = segment.begin / columns;
    int64_t end = (segment.begin + segment.length + columns - 1) / columns;
    at::Tensor rows = at::mm(p.narrow(0, begin, end - begin), q.t());
    place.copy_(rows.view({-1}).narrow(0, segment.begin - begin * columns, segment.length));
  }

  PowerSgd options_;
  Seed seed_;
  std::vector<std::pair<Pattern, int64_t>> overrides_;
  std::map<const FlatShard*, std::vector<Matrix>> matrices_;
};

}  // namespace

void register_power_sgd(Registry& registry) {
  registry.add<Exchange, PowerSgd>([](const PowerSgd& options, const Exchange::Context& context) {
    return std::make_unique<LowRankSum>(options, context.seed);
  });
}

}  // namespace echelon
