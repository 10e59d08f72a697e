#include "comm/backends/mpi_network.h"

#include <algorithm>
#include <cstring>

#include <ATen/ATen.h>

#include "comm/backends/mpi_message.h"
#include "comm/backends/reduction.h"

namespace echelon {

namespace {

constexpr int kSignatureTag = 1;

using Buffer = std::unique_ptr<std::byte[]>;
Buffer buffer_of(int64_t bytes) { return std::make_unique_for_overwrite<std::byte[]>(static_cast<size_t>(bytes)); }

std::byte* data_of(const at::Tensor& tensor) { return static_cast<std::byte*>(tensor.data_ptr()); }

/// Calls `move(begin, length)` for each chunk of `bytes`.
template <class Move>
void in_chunks(int64_t bytes, int64_t chunk, const Move& move) {
  for (int64_t begin = 0; begin < bytes; begin += chunk) move(begin, std::min(chunk, bytes - begin));
}

/// Copies `count` pieces of `length` bytes, which lie `from_stride` and `to_stride` apart.
void copy_pieces(std::byte* to, int64_t to_stride, const std::byte* from, int64_t from_stride, int count,
                 int64_t length) {
  for (int piece = 0; piece < count; ++piece) {
    std::memcpy(to + piece * to_stride, from + piece * from_stride, static_cast<size_t>(length));
  }
}

}  // namespace

MpiNetwork::MpiNetwork(std::shared_ptr<Membership> membership, Communicator communicator, int ranks_per_node, bool met)
    : Backend(std::move(membership), communicator.rank(), communicator.size()),
      communicator_(std::move(communicator)),
      ranks_per_node_(ranks_per_node),
      met_(met),
      sent_(static_cast<size_t>(size())),
      received_(static_cast<size_t>(size())) {}

std::vector<Signature> MpiNetwork::collect(const Signature& mine) {
  std::vector<Signature> all(static_cast<size_t>(size()));
  std::vector<Request> requests;
  if (rank() == 0) {
    all[0] = mine;
    for (int from = 1; from < size(); ++from) {
      Request& request = requests.emplace_back(true);
      mpi_check(MPI_Irecv(&all[static_cast<size_t>(from)], sizeof mine, MPI_BYTE, from, kSignatureTag,
                          communicator_.get(), request.out()),
                "MPI_Irecv");
    }
  } else {
    Request& request = requests.emplace_back();
    mpi_check(MPI_Isend(&mine, sizeof mine, MPI_BYTE, 0, kSignatureTag, communicator_.get(), request.out()),
              "MPI_Isend");
  }
  auto missing = [&] {
    std::vector<int> ranks;
    for (size_t i = 0; i < requests.size(); ++i) {
      if (!requests[i].finished()) ranks.push_back(static_cast<int>(i) + 1);
    }
    return fmt::format("rank {} to enter {}", fmt::join(ranks, ", "), mine.text());
  };
  auto all_here = [&] {
    return std::all_of(requests.begin(), requests.end(), [](Request& r) { return r.finished(); });
  };
  membership_->wait_until(all_here, missing);

  Request handed_out;
  auto bytes = static_cast<int>(sizeof mine * all.size());
  mpi_check(MPI_Ibcast(all.data(), bytes, MPI_BYTE, 0, communicator_.get(), handed_out.out()), "MPI_Ibcast");
  membership_->wait_until([&] { return handed_out.finished(); },
                          [&] { return fmt::format("rank 0, or a rank it waits for, to enter {}", mine.text()); });
  return all;
}

void MpiNetwork::meet(const Collective& collective) {
  if (!membership_->checked || met_) return;
  Signature mine = Signature::of(collective);
  std::vector<Signature> all = collect(mine);
  for (int rank = 0; rank < size(); ++rank) {
    const Signature& theirs = all[static_cast<size_t>(rank)];
    if (!mine.agrees(theirs)) throw disagreement(this->rank(), mine, rank, theirs);
  }
}

void MpiNetwork::finish(Request& request, const Collective& collective) {
  membership_->wait_until(
      [&] { return request.finished(); },
      [&] { return fmt::format("the other ranks to take part in {}", Signature::of(collective).text()); });
}

void MpiNetwork::exchange(const Collective& collective, const std::byte* send, std::byte* recv, int64_t bytes) {
  Request request;
  auto count = static_cast<int>(bytes);
  mpi_check(MPI_Ialltoall(send, count, MPI_BYTE, recv, count, MPI_BYTE, communicator_.get(), request.out()),
            "MPI_Ialltoall");
  finish(request, collective);
}

void MpiNetwork::gather(const Collective& collective, const std::byte* send, std::byte* recv, int64_t bytes) {
  Request request;
  auto count = static_cast<int>(bytes);
  const void* from = send == recv + rank() * bytes ? MPI_IN_PLACE : send;
  mpi_check(MPI_Iallgather(from, count, MPI_BYTE, recv, count, MPI_BYTE, communicator_.get(), request.out()),
            "MPI_Iallgather");
  finish(request, collective);
}

void MpiNetwork::sum_slices(const Collective& collective, const std::byte* slices, std::byte* out, int64_t bytes,
                            bool accumulate) {
  std::vector<const void*> sources;
  for (int from = 0; from < size(); ++from) sources.push_back(slices + from * bytes);
  auto elements = bytes / static_cast<int64_t>(c10::elementSize(collective.dtype));
  reduce(out, sources.data(), size(), elements, collective.dtype, collective.reduce, accumulate);
}

Work MpiNetwork::all_reduce(const Collective& collective, at::Tensor& tensor) {
  return in_turn(tensor, [this, collective, tensor] { sum_everywhere(collective, tensor); });
}

void MpiNetwork::sum_everywhere(const Collective& collective, const at::Tensor& tensor) {
  meet(collective);
  auto bytes = static_cast<int64_t>(tensor.nbytes());
  auto item = static_cast<int64_t>(tensor.element_size());
  if (bytes <= kSmallBytes) {
    Buffer all = buffer_of(bytes * size());
    gather(collective, data_of(tensor), all.get(), bytes);
    sum_slices(collective, all.get(), data_of(tensor), bytes, false);
    return;
  }
  in_chunks(bytes, kChunkBytes, [&](int64_t begin, int64_t length) {
    int64_t part = (length / item + size() - 1) / size() * item;  // of one rank; the last ones are padded
    Buffer sent = buffer_of(part * size()), received = buffer_of(part * size());
    std::memcpy(sent.get(), data_of(tensor) + begin, static_cast<size_t>(length));
    std::memset(sent.get() + length, 0, static_cast<size_t>(part * size() - length));
    exchange(collective, sent.get(), received.get(), part);
    sum_slices(collective, received.get(), sent.get() + rank() * part, part, false);
    gather(collective, sent.get() + rank() * part, sent.get(), part);
    std::memcpy(data_of(tensor) + begin, sent.get(), static_cast<size_t>(length));
  });
}

Work MpiNetwork::all_gather(const Collective& collective, const at::Tensor& shard, at::Tensor& full) {
  return in_turn(full, [this, collective, shard, full] { gather_everywhere(collective, shard, full); });
}

void MpiNetwork::gather_everywhere(const Collective& collective, const at::Tensor& shard, const at::Tensor& full) {
  meet(collective);
  auto slice = static_cast<int64_t>(shard.nbytes());
  if (slice <= kChunkBytes) return gather(collective, data_of(shard), data_of(full), slice);
  Buffer all = buffer_of(kChunkBytes * size());
  in_chunks(slice, kChunkBytes, [&](int64_t begin, int64_t length) {
    gather(collective, data_of(shard) + begin, all.get(), length);
    copy_pieces(data_of(full) + begin, slice, all.get(), length, size(), length);
  });
}

/// Calls `take(begin, length, slices)` for chunk after chunk of the slices that all ranks have sent to this one.
template <class Take>
void MpiNetwork::exchange_slices(const Collective& collective, const std::byte* full, int64_t slice, const Take& take) {
  int64_t chunk = std::min(slice, std::max<int64_t>(64, kChunkBytes / size() / 64 * 64));
  Buffer sent = buffer_of(chunk * size()), received = buffer_of(chunk * size());
  in_chunks(slice, chunk, [&](int64_t begin, int64_t length) {
    copy_pieces(sent.get(), length, full + begin, slice, size(), length);
    exchange(collective, sent.get(), received.get(), length);
    take(begin, length, received.get());
  });
}

Work MpiNetwork::reduce_scatter(const Collective& collective, const at::Tensor& full, at::Tensor& shard) {
  return in_turn(full, [this, collective, full, shard] {
    meet(collective);
    exchange_slices(collective, data_of(full), static_cast<int64_t>(shard.nbytes()),
                    [&](int64_t begin, int64_t length, const std::byte* slices) {
                      sum_slices(collective, slices, data_of(shard) + begin, length, collective.accumulate);
                    });
  });
}

Work MpiNetwork::all_to_all(const Collective& collective, const at::Tensor& input, at::Tensor& output) {
  return in_turn(input, [this, collective, input, output] {
    meet(collective);
    int64_t slice = static_cast<int64_t>(input.nbytes()) / size();
    exchange_slices(collective, data_of(input), slice, [&](int64_t begin, int64_t length, const std::byte* slices) {
      copy_pieces(data_of(output) + begin, slice, slices, length, size(), length);
    });
  });
}

Work MpiNetwork::broadcast(const Collective& collective, at::Tensor& tensor) {
  return in_turn(tensor, [this, collective, tensor] {
    meet(collective);
    in_chunks(static_cast<int64_t>(tensor.nbytes()), kChunkBytes, [&](int64_t begin, int64_t length) {
      Request request;
      mpi_check(MPI_Ibcast(data_of(tensor) + begin, static_cast<int>(length), MPI_BYTE, collective.root,
                           communicator_.get(), request.out()),
                "MPI_Ibcast");
      finish(request, collective);
    });
  });
}

Work MpiNetwork::send(const Collective& collective, const at::Tensor& tensor) {
  membership_->lane.drain();
  Collective numbered = collective;
  numbered.sequence = ++sent_[static_cast<size_t>(collective.root)];
  return membership_->start(std::make_shared<MpiMessage>(communicator_.get(), numbered, rank(), data_of(tensor),
                                                         static_cast<int64_t>(tensor.nbytes())));
}

Work MpiNetwork::recv(const Collective& collective, at::Tensor& tensor) {
  membership_->lane.drain();
  Collective numbered = collective;
  numbered.sequence = ++received_[static_cast<size_t>(collective.root)];
  return membership_->start(std::make_shared<MpiMessage>(communicator_.get(), numbered, rank(), data_of(tensor),
                                                         static_cast<int64_t>(tensor.nbytes())));
}

Work MpiNetwork::barrier(const Collective& collective) {
  membership_->lane.drain();
  meet(collective);  // which nobody leaves before all have entered
  if (membership_->checked) return {};
  Request request;
  mpi_check(MPI_Ibarrier(communicator_.get(), request.out()), "MPI_Ibarrier");
  finish(request, collective);
  return {};
}

std::shared_ptr<Backend> MpiNetwork::split(const Collective& collective, int color, int key) {
  membership_->lane.drain();
  meet(collective);
  return make_mpi_group(membership_, communicator_.split(color, key), ranks_per_node_);
}

Window MpiNetwork::allocate(const Collective& collective, int64_t elements) {
  membership_->lane.drain();
  meet(collective);
  return {at::zeros({elements}, collective.dtype), {}};
}

}  // namespace echelon
