#include "models/merged_shards.h"

#include <algorithm>
#include <optional>
#include <set>

#include <ATen/ATen.h>

#include "comm/agree.h"
#include "models/interchange/residue_codec.h"
#include "models/kernels/ordered_product.h"
#include "sharding/unit.h"

namespace echelon {

namespace {

/// What this rank owns of one parameter, as blocks of its matrix.
class OwnedPart {
 public:
  explicit OwnedPart(const Parameter& parameter) : parameter_(parameter), shard_(parameter.shard()) {
    for (const Segment& segment : shard_.segments()) {
      if (segment.parameter == &parameter) segment_ = segment;
    }
  }

  const Mesh& mesh() const { return shard_.zero().mesh; }
  int64_t rows() const { return parameter_.layout().sizes[0]; }
  int64_t columns() const { return width(parameter_.layout().sizes); }
  /// Whether `tp` cuts every row.
  bool cut_by_tp() const { return columns() > width(parameter_.local().sizes); }
  /// Whether the ranks of a replica own different elements.
  bool spread() const { return shard_.zero().shards_state() && mesh().dp_in_replica().size() > 1; }

  /// Rows, in the whole matrix, that no rank owns whole; the same on every rank of the replica, and of `tp` where that
  /// cuts rows.
  std::vector<int64_t> cut_rows() const {
    std::vector<int64_t> cut;
    int64_t columns = width(parameter_.local().sizes), first = parameter_.local().offsets[0];
    if (cut_by_tp()) {
      for (int64_t row = 0; row < rows(); ++row) cut.push_back(row);
    } else if (spread()) {
      int64_t part = shard_.elements() / mesh().dp_in_replica().size();
      for (int64_t border = part; border < shard_.elements(); border += part) {
        int64_t at = border - parameter_.offset();
        bool inside = at > 0 && at < parameter_.local().elements() && at % columns != 0;
        if (inside && (cut.empty() || cut.back() != first + at / columns)) cut.push_back(first + at / columns);
      }
    }
    return cut;
  }

  /// Calls `visit` with a view of masters and its place in the whole matrix, block by block in the order of the memory:
  /// whole rows (of the local slice), or a part of one. Only rows in [row, row + rows) of the whole matrix.
  template <class Visit>
  void visit_blocks(int64_t row, int64_t rows, const Visit& visit) const {
    if (!segment_) return;
    const Slice& local = parameter_.local();
    int64_t columns = width(local.sizes), first_column = local.sizes.size() > 1 ? local.offsets[1] : 0;
    int64_t begin = std::max(segment_->begin, (row - local.offsets[0]) * columns);
    int64_t end = std::min(segment_->begin + segment_->length, (row + rows - local.offsets[0]) * columns);
    while (begin < end) {
      int64_t column = begin % columns, whole = (end - begin) / columns;
      Slice block{{local.offsets[0] + begin / columns, first_column + column},
                  {1, std::min(columns - column, end - begin)}};
      if (column == 0 && whole > 0) block.sizes = {std::min(whole, rows_at_once(columns)), columns};
      int64_t place = segment_->offset + begin - segment_->begin;
      visit(shard_.master().narrow(0, place, block.elements()).view(block.sizes), block);
      begin += block.elements();
    }
  }

  template <class Visit>
  void visit_blocks(const Visit& visit) const {
    visit_blocks(0, rows(), visit);
  }

 private:
  static int64_t width(const std::vector<int64_t>& sizes) { return sizes.size() > 1 ? sizes[1] : 1; }

  const Parameter& parameter_;
  FlatShard& shard_;
  std::optional<Segment> segment_;  // none: this rank owns nothing of it
};

/// The lengths of `rows` whole rows from `row` on, which several ranks own: their squares are brought together, so that
/// they are summed in the same order as where one rank has all of them. Collective.
at::Tensor lengths_of_cut_rows(const MergeRule& rule, const OwnedPart& part, int64_t row, int64_t rows) {
  at::Tensor squares = at::zeros({rows, part.columns()}, at::kDouble);
  part.visit_blocks(row, rows, [&](const at::Tensor& weight, const Slice& block) {
    at::Tensor place = squares.narrow(0, block.offsets[0] - row, block.sizes[0]);
    place.narrow(1, block.offsets[1], block.sizes[1]).copy_(rule.before_lengths(weight.cpu(), block).square());
  });
  // Every element is zero on all ranks but one: the sums are exact.
  Call call{.name = rule.parameter};
  at::Tensor sums = squares.to(part.mesh().world().device());
  if (part.spread()) part.mesh().dp_in_replica().all_reduce(sums, call).wait();
  if (part.cut_by_tp()) part.mesh().tp().all_reduce(sums, call).wait();
  return ordered_row_lengths_of_squares(sums.cpu());
}

/// The scale [out, 1] of cut rows, by what depends on W; undefined: no rows are cut. Collective.
at::Tensor scale_of_cut_rows(const MergeRule& rule, const OwnedPart& part) {
  if (!rule.row_lengths.defined()) return {};
  std::vector<int64_t> cut = part.cut_rows();
  if (cut.empty()) return {};
  at::Tensor scale = at::zeros({part.rows(), 1}, at::kDouble);
  int64_t step = rows_at_once(part.columns());
  for (size_t first = 0; first < cut.size();) {
    size_t end = first + 1;
    while (end < cut.size() && cut[end] == cut[end - 1] + 1 && cut[end] < cut[first] + step) ++end;
    int64_t row = cut[first], rows = static_cast<int64_t>(end - first);
    scale.narrow(0, row, rows).copy_(rule.scale_for(lengths_of_cut_rows(rule, part, row, rows), row));
    first = end;
  }
  return scale;
}

}  // namespace

void MergedShards::merge(const std::vector<MergeRule>& rules) {
  const Group& world = weights_.units.front()->zero().mesh.world();
  world.barrier({.name = "merge"});  // others may still read what they have gathered
  Merge merge;
  int64_t count = static_cast<int64_t>(rules.size()), beyond_range = count;
  for (int64_t i = 0; i < count; ++i) {
    merge.push_back({.rule = rules[i]});
    if (!fold(merge.back())) beyond_range = std::min(beyond_range, i);
  }
  publish(merge);
  if (undoable_) merges_.push_back(std::move(merge));
  int64_t first = -agree_max(world, -beyond_range, "merge");
  if (first == count) return;
  if (undoable_) unmerge();
  throw leaves_range(rules[first].parameter);
}

bool MergedShards::fold(Change& change) {
  OwnedPart part(weights_.at(change.rule.parameter));
  at::Tensor of_cut_rows = scale_of_cut_rows(change.rule, part);
  if (change.rule.row_lengths.defined()) change.used = at::zeros({part.rows(), 1}, at::kDouble);
  ResiduePacker residue;
  bool finite = true;
  part.visit_blocks([&](const at::Tensor& weight, const Slice& block) {
    at::Tensor used;
    if (block.sizes[1] < part.columns() && of_cut_rows.defined())
      used = of_cut_rows.narrow(0, block.offsets[0], block.sizes[0]);
    finite = fold_in(change.rule, weight, block, &used, undoable_ ? &residue : nullptr) && finite;
    if (used.defined()) change.used.narrow(0, block.offsets[0], block.sizes[0]).copy_(used);
  });
  if (undoable_) change.residue = residue.finish();
  return finite;
}

void MergedShards::unmerge() {
  if (merges_.empty()) throw Error::input("unmerge", "nothing is merged");
  weights_.units.front()->zero().mesh.world().barrier({.name = "unmerge"});
  Merge merge = std::move(merges_.back());
  merges_.pop_back();
  for (auto change = merge.rbegin(); change != merge.rend(); ++change) restore(*change);
  publish(merge);
}

void MergedShards::restore(const Change& change) {
  OwnedPart part(weights_.at(change.rule.parameter));
  ResidueUnpacker residue(change.residue.data(), change.residue.size(), change.rule.parameter);
  part.visit_blocks([&](const at::Tensor& weight, const Slice& block) {
    at::Tensor used = change.used;
    if (used.defined()) used = used.narrow(0, block.offsets[0], block.sizes[0]);
    take_out(change.rule, weight, block, used, residue.next(block.elements()));
  });
}

void MergedShards::publish(const Merge& merge) {
  std::set<std::string> changed;
  for (const Change& change : merge) changed.insert(change.rule.parameter);
  std::vector<FlatShard*> shards = weights_.shards();
  std::erase_if(shards, [&](const FlatShard* shard) {
    return std::none_of(shard->parameters().begin(), shard->parameters().end(),
                        [&](const Parameter* parameter) { return changed.contains(parameter->name()); });
  });
  weights_.publish(shards);
}

int64_t MergedShards::bytes_kept() const {
  int64_t bytes = 0;
  for (const Merge& merge : merges_) {
    for (const Change& change : merge) bytes += static_cast<int64_t>(change.residue.size());
  }
  return bytes;
}

}  // namespace echelon
