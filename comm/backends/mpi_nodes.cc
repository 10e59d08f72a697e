#include "comm/backends/mpi_nodes.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace echelon {

namespace {

/// A part of a collective, as the backends below are to compare and record it.
Collective part_of(const Collective& whole, Op op, const at::Tensor& larger, bool accumulate = false) {
  Collective part = whole;
  part.op = op;
  part.dtype = larger.scalar_type();
  part.count = larger.numel();
  part.accumulate = accumulate;
  return part;
}

int64_t bytes_of(at::ScalarType dtype) { return static_cast<int64_t>(c10::elementSize(dtype)); }

bool is_narrow(at::ScalarType dtype) { return dtype == at::kBFloat16 || dtype == at::kHalf; }

/// Calls `take(begin, length)` for pieces of `elements` that have at most `piece_bytes` in all their `copies`. What it
/// copies is data, and nothing that gradients flow through.
template <class Take>
void in_pieces(int64_t elements, int64_t copies, int64_t element_bytes, int64_t piece_bytes, const Take& take) {
  c10::AutoGradMode no_gradients(false);
  int64_t most = std::max<int64_t>(1, piece_bytes / (copies * element_bytes));
  for (int64_t begin = 0; begin < elements; begin += most) take(begin, std::min(most, elements - begin));
}

}  // namespace

MpiNodes::MpiNodes(std::shared_ptr<Membership> membership, Communicator communicator, int ranks_per_node,
                   std::shared_ptr<SharedMemory> node, std::shared_ptr<MpiNetwork> across)
    : MpiNetwork(std::move(membership), std::move(communicator), ranks_per_node),
      node_(std::move(node)),
      across_(std::move(across)) {}

void MpiNodes::sum_in_place(const Collective& collective, at::Tensor all) {
  if (static_cast<int64_t>(all.nbytes()) <= kSmallBytes) {
    node_->all_reduce(part_of(collective, Op::all_reduce, all), all).wait();
    across_->all_reduce(part_of(collective, Op::all_reduce, all), all).wait();
    return;
  }
  at::Tensor mine = at::empty({all.numel() / node_->size()}, all.options());
  node_->reduce_scatter(part_of(collective, Op::reduce_scatter, all), all, mine).wait();
  across_->all_reduce(part_of(collective, Op::all_reduce, mine), mine).wait();
  node_->all_gather(part_of(collective, Op::all_gather, all), mine, all).wait();
}

Work MpiNodes::all_reduce(const Collective& collective, at::Tensor& tensor) {
  return in_turn(tensor, [this, collective, flat = tensor.view(-1)] { sum_all(collective, flat); });
}

void MpiNodes::sum_all(const Collective& collective, const at::Tensor& flat) {
  meet(collective);
  auto wide = is_narrow(collective.dtype) ? at::kFloat : collective.dtype;
  in_pieces(flat.numel(), 1, bytes_of(wide), kChunkBytes, [&](int64_t begin, int64_t length) {
    int64_t padded = (length + node_->size() - 1) / node_->size() * node_->size();
    at::Tensor piece = at::zeros({padded}, flat.options().dtype(wide));
    piece.narrow(0, 0, length).copy_(flat.narrow(0, begin, length));
    sum_in_place(collective, piece);
    flat.narrow(0, begin, length).copy_(piece.narrow(0, 0, length));
  });
}

Work MpiNodes::all_gather(const Collective& collective, const at::Tensor& shard, at::Tensor& full) {
  return in_turn(full, [this, collective, shard, full] { gather_all(collective, shard, full); });
}

void MpiNodes::gather_all(const Collective& collective, const at::Tensor& shard, const at::Tensor& full) {
  meet(collective);
  int64_t nodes = across_->size(), ranks = node_->size(), n = shard.numel();
  at::Tensor from = shard.view(-1), to = full.view({nodes, ranks, n});
  in_pieces(n, nodes * ranks, bytes_of(full.scalar_type()), kChunkBytes, [&](int64_t begin, int64_t length) {
    at::Tensor column = at::empty({nodes, length}, full.options()),
               all = at::empty({ranks, nodes, length}, full.options());
    across_->all_gather(part_of(collective, Op::all_gather, column), from.narrow(0, begin, length), column).wait();
    node_->all_gather(part_of(collective, Op::all_gather, all), column, all).wait();
    to.narrow(2, begin, length).copy_(all.transpose(0, 1));
  });
}

Work MpiNodes::reduce_scatter(const Collective& collective, const at::Tensor& full, at::Tensor& shard) {
  return in_turn(full, [this, collective, full, shard] { sum_parts(collective, full, shard); });
}

void MpiNodes::sum_parts(const Collective& collective, const at::Tensor& full, const at::Tensor& shard) {
  meet(collective);
  int64_t nodes = across_->size(), ranks = node_->size(), n = shard.numel();
  at::Tensor from = full.view({nodes, ranks, n}), to = shard.view(-1);
  auto wide = is_narrow(collective.dtype) ? at::kFloat : collective.dtype;
  in_pieces(n, nodes * ranks, bytes_of(wide), kChunkBytes, [&](int64_t begin, int64_t length) {
    at::Tensor columns = from.narrow(2, begin, length).transpose(0, 1).to(wide).contiguous();
    at::Tensor column = at::empty({nodes, length}, columns.options());
    node_->reduce_scatter(part_of(collective, Op::reduce_scatter, columns), columns, column).wait();
    at::Tensor part = to.narrow(0, begin, length), sum = part.to(wide);
    across_->reduce_scatter(part_of(collective, Op::reduce_scatter, column, collective.accumulate), column, sum).wait();
    if (wide != collective.dtype) part.copy_(sum);
  });
}

}  // namespace echelon
