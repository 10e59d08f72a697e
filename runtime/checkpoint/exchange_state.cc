#include "runtime/checkpoint/exchange_state.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "runtime/checkpoint/names.h"

namespace echelon {

namespace {

at::Tensor local_of(const at::Tensor& flat, const Parameter& parameter) {
  return flat.narrow(0, parameter.offset(), parameter.local().elements()).view(parameter.local().sizes);
}

/// Elements of a parameter's local slice, row-major.
struct Range {
  int64_t begin, end;
};

/// Whether summands of `parameter` are those of the first tensor parallel rank.
bool is_copy(const Exchange& exchange, const Parameter& parameter, const Mesh& mesh) {
  return exchange.summands_are_copied_on_tp() && !parameter.layout().is_sharded_on("tp") && mesh.tp().rank() != 0;
}

/// Those that this rank owns, in the first replica; of parts of a sum over `tp`, its first rank alone.
Range owned_range(const FlatShard& shard, const Parameter& parameter) {
  const Mesh& mesh = shard.zero().mesh;
  bool is_part = !parameter.layout().is_sharded_on("tp") && !shard.zero().exchange->summands_are_copied_on_tp();
  if (mesh.replica() != 0 || (is_part && mesh.tp().rank() != 0)) return {0, 0};
  int64_t part = shard.elements() / mesh.dp_in_replica().size(),
          first = part * mesh.dp_in_replica().rank() - parameter.offset();
  int64_t elements = parameter.local().elements();
  return {std::clamp<int64_t>(first, 0, elements), std::clamp<int64_t>(first + part, 0, elements)};
}

/// One summand of an exchange in a checkpoint.
class StoredSummand {
 public:
  StoredSummand(std::string what, CheckpointReader& reader) : what_(std::move(what)), reader_(reader) {}

  void read(const FlatShard& shard, const Parameter& parameter, const at::Tensor& flat) {
    const Mesh& mesh = shard.zero().mesh;
    bool same_ranks = reader_.exchange_layout() == ExchangeLayout{mesh.world().size(), mesh.tp().size()};
    int rank = mesh.world().rank() - (is_copy(*shard.zero().exchange, parameter, mesh) ? mesh.tp().rank() : 0);
    same_ranks ? read_own(rank, parameter, flat) : read_sum(owned_range(shard, parameter), parameter, flat);
  }

 private:
  void read_own(int rank, const Parameter& parameter, const at::Tensor& flat) {
    at::Tensor own = at::zeros(parameter.local().sizes, flat.options().device(at::kCPU));
    reader_.add(summand_name(what_, rank, parameter.name()), parameter.local(), own);
    local_of(flat, parameter).copy_(own);
  }

  /// Sums what all old ranks have written of `parameter`, as far as this rank owns it.
  void read_sum(Range owned, const Parameter& parameter, const at::Tensor& flat) {
    if (owned.begin == owned.end) return;
    Slice rows = parameter.local();
    int64_t row = rows.elements() / rows.sizes[0], first = owned.begin / row;
    rows.offsets[0] += first;
    rows.sizes[0] = (owned.end + row - 1) / row - first;
    at::Tensor sum = at::zeros(rows.sizes, at::kDouble);
    for (int rank = 0; rank < reader_.exchange_layout().ranks; ++rank) {
      reader_.add(summand_name(what_, rank, parameter.name()), rows, sum);
    }
    int64_t length = owned.end - owned.begin;
    flat.narrow(0, parameter.offset() + owned.begin, length)
        .copy_(sum.view({-1}).narrow(0, owned.begin - first * row, length));
  }

  std::string what_;
  CheckpointReader& reader_;
};

}  // namespace

std::vector<KeptByExchange> kept_by_exchange(Trainer& trainer) {
  std::vector<KeptByExchange> kept;
  const Mesh& mesh = trainer.mesh();
  Exchange& exchange = *trainer.zero().exchange;
  for (Owned& owned : trainer.owned()) {
    for (const auto& [what, flat] : exchange.summands(*owned.shard)) {
      for (const Parameter* parameter : owned.shard->parameters()) {
        if (parameter->local().elements() == 0 || is_copy(exchange, *parameter, mesh)) continue;
        kept.push_back({summand_name(what, mesh.world().rank(), parameter->name()), parameter->local(),
                        local_of(flat, *parameter)});
      }
    }
    if (mesh.dp().rank() != 0) continue;
    for (const auto& [tensor, start] : exchange.warm_start(*owned.shard)) {
      kept.push_back({warm_start_name(mesh.tp().rank(), tensor), Slice::whole(start.sizes().vec()), start});
    }
  }
  return kept;
}

void load_exchange_state(Trainer& trainer, CheckpointReader& reader) {
  Exchange& exchange = *trainer.zero().exchange;
  exchange.start(reader.step());  // a checkpoint that is written before the next step holds what this one does
  for (Owned& owned : trainer.owned()) {
    for (const auto& [what, flat] : exchange.summands(*owned.shard)) {
      flat.zero_();
      for (const Parameter* parameter : owned.shard->parameters())
        StoredSummand(what, reader).read(*owned.shard, *parameter, flat);
    }
    for (auto& [what, state] : exchange.owned_state(*owned.shard)) {
      if (!reader.has(exchange_prefix(what) + owned.shard->parameters().front()->name())) continue;
      at::Tensor values = state;
      owned.shard->read_owned(values, reader, exchange_prefix(what));
    }
    for (const auto& [tensor, start] : exchange.warm_start(*owned.shard)) {
      std::string name = warm_start_name(trainer.mesh().tp().rank(), tensor);
      std::vector<int64_t> sizes = start.sizes().vec();
      if (reader.holds(name, sizes)) start.copy_(reader.read(name, Slice::whole(sizes)));
    }
  }
}

}  // namespace echelon
