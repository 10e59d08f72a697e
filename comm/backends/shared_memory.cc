#include "comm/backends/shared_memory.h"

#include <algorithm>
#include <cstring>

#include <ATen/ATen.h>

#include "comm/backends/reduction.h"

namespace echelon {

namespace {

constexpr int64_t kStagingBytes =
    512 << 10;                             // a rank's half of the staging area: copies stay in the second-level cache
constexpr int64_t kSmallBytes = 16 << 10;  // below, a copy costs less than a barrier
constexpr int64_t kSmallSumBytes = 64 << 10;  // below (all ranks together), every rank may sum everything by itself
constexpr int64_t kBlockBytes = 16 << 10;     // a sum is handed to every rank while it is in the first-level cache

int64_t aligned_down(int64_t bytes) { return bytes / 64 * 64; }
int64_t aligned_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// A group's page holds, one after the other: its Failure, its Control, its Mailboxes, its staging area.
int64_t control_begin() { return aligned_up(sizeof(Failure)); }
int64_t mailboxes_begin(int size) { return control_begin() + aligned_up(Control::bytes(size)); }
int64_t staging_begin(int size) { return mailboxes_begin(size) + aligned_up(Mailboxes::bytes(size)); }

void copy_bytes(std::byte* to, const std::byte* from, int64_t bytes) {
  if (to != from && bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

/// How `bytes` are cut into chunks.
struct Chunks {
  int64_t bytes, chunk;
  int64_t count() const { return (bytes + chunk - 1) / chunk; }
  int64_t begin(int64_t index) const { return index * chunk; }
  int64_t length(int64_t index) const { return std::min(chunk, bytes - begin(index)); }
};

/// Where the part of `rank` begins when `bytes` are dealt to `size` ranks in whole cache lines.
int64_t part_begin(int64_t bytes, int rank, int size) {
  return rank == size ? bytes : aligned_down(static_cast<int64_t>(static_cast<__int128>(bytes) * rank / size));
}

}  // namespace

/// Memory of a tensor, and the window it lies in, if it does.
struct SharedMemory::Tensor {
  std::byte* data = nullptr;
  int64_t bytes = 0;
  WindowTable::Found found;

  bool in_window() const { return found.base != nullptr; }
  /// In the slice of `rank`, and so in memory that no other rank's tensor of this collective shares.
  bool in_slice_of(int rank) const {
    const auto& [window, offset, slice] = found.place;
    return in_window() && offset >= rank * slice && offset + bytes <= (rank + 1) * slice;
  }
  /// Below kSmallBytes staging is faster than a second barrier, but only for memory that is this rank's own.
  bool wants_staging(int rank) const { return !in_window() || (bytes <= kSmallBytes && in_slice_of(rank)); }
};

/// What the ranks have told each other about where their tensors lie.
struct SharedMemory::Meeting {
  const Control& control;
  std::byte* source_base;
  bool all_staged = true;
  bool sources_visible = true;  ///< all in one window, and nobody prefers staging
  bool one_target = true;       ///< the same place in the same window

  std::byte* source(int rank) const { return source_base + control.note(rank).source.offset; }
};

SharedMemory::SharedMemory(std::shared_ptr<Membership> membership, std::shared_ptr<MemorySource> source,
                           NodeMemory page, int rank, int size)
    : Backend(std::move(membership), rank, size),
      source_(std::move(source)),
      page_(std::move(page)),
      control_(page_.get() + control_begin(), rank, size, *membership_),
      mailboxes_(page_.get() + mailboxes_begin(size), rank, size) {}

int64_t SharedMemory::page_bytes(int size) { return staging_begin(size) + 2 * size * kStagingBytes; }

std::shared_ptr<Failure> SharedMemory::failure() const { return {page_, reinterpret_cast<Failure*>(page_.get())}; }

std::byte* SharedMemory::staging(int rank) const {
  return page_.get() + staging_begin(size()) + (2 * rank + static_cast<int64_t>(rounds_ % 2)) * kStagingBytes;
}

SharedMemory::Tensor SharedMemory::locate(const at::Tensor& tensor) const {
  auto* data = static_cast<std::byte*>(tensor.data_ptr());
  auto bytes = static_cast<int64_t>(tensor.nbytes());
  return {data, bytes, windows_->find(data, bytes)};
}

template <class Fill>
SharedMemory::Meeting SharedMemory::meet(const Collective& collective, const Tensor& source, const Tensor& target,
                                         bool stage, const Fill& fill) {
  Note& note = control_.write(collective);
  note.source = source.found.place;
  note.target = target.found.place;
  note.staged = stage;
  if (stage) fill(0);
  control_.meet();
  Meeting meeting{control_, source.found.base};
  for (int rank = 0; rank < size(); ++rank) {
    const Note& theirs = control_.note(rank);
    meeting.all_staged &= theirs.staged;
    meeting.sources_visible &=
        !theirs.staged && theirs.source.window != 0 && theirs.source.window == note.source.window;
    meeting.one_target &= theirs.target.window != 0 && theirs.target == note.target;
  }
  return meeting;
}

template <class Fill, class Drain>
void SharedMemory::through_staging(bool first_filled, int64_t chunks, const Fill& fill, const Drain& drain) {
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    // A half is filled again only two rounds later: everybody has drained it before the barrier in between.
    if (chunk > 0 || !first_filled) {
      fill(chunk);
      control_.barrier();
    }
    drain(chunk);
    ++rounds_;
  }
}

Work SharedMemory::all_reduce(const Collective& collective, at::Tensor& tensor) {
  Tensor ours = locate(tensor);
  Chunks chunks{ours.bytes, kStagingBytes};
  bool small = ours.bytes * size() <= kSmallSumBytes;
  auto item = static_cast<int64_t>(tensor.element_size());
  std::vector<const void*> sources(static_cast<size_t>(size()));
  auto sum_staged = [&](std::byte* to, int64_t begin, int64_t end) {
    for (int rank = 0; rank < size(); ++rank) sources[static_cast<size_t>(rank)] = staging(rank) + begin;
    reduce(to, sources.data(), size(), (end - begin) / item, collective.dtype, collective.reduce, false);
  };
  auto fill = [&](int64_t chunk) {
    copy_bytes(staging(rank()), ours.data + chunks.begin(chunk), chunks.length(chunk));
  };
  auto drain = [&](int64_t chunk) {
    int64_t length = chunks.length(chunk);
    std::byte* to = ours.data + chunks.begin(chunk);
    if (small) return sum_staged(to, 0, length);
    int64_t begin = part_begin(length, rank(), size());
    sum_staged(staging(0) + begin, begin, part_begin(length, rank() + 1, size()));
    control_.barrier();
    copy_bytes(to, staging(0), length);
  };
  Meeting meeting = meet(collective, ours, ours, ours.bytes > 0 && ours.wants_staging(rank()), fill);
  if (meeting.sources_visible) {
    all_reduce_where_they_lie(collective, meeting, ours.bytes);
  } else {
    through_staging(meeting.all_staged, chunks.count(), fill, drain);
  }
  return {};
}

/// Every rank sums its part for all of them and writes it into every tensor: nobody else reads or writes that part.
void SharedMemory::all_reduce_where_they_lie(const Collective& collective, const Meeting& meeting, int64_t bytes) {
  int64_t begin = part_begin(bytes, rank(), size());
  Chunks blocks{part_begin(bytes, rank() + 1, size()) - begin, kBlockBytes};
  auto item = static_cast<int64_t>(c10::elementSize(collective.dtype));
  std::vector<const void*> sources(static_cast<size_t>(size()));
  for (int64_t block = 0; block < blocks.count(); ++block) {
    int64_t at = begin + blocks.begin(block), length = blocks.length(block);
    for (int rank = 0; rank < size(); ++rank) sources[static_cast<size_t>(rank)] = meeting.source(rank) + at;
    std::byte* sum = meeting.source(0) + at;
    reduce(sum, sources.data(), size(), length / item, collective.dtype, collective.reduce, false);
    for (int rank = 1; rank < size(); ++rank) copy_bytes(meeting.source(rank) + at, sum, length);
  }
  control_.barrier();
}

Work SharedMemory::all_gather(const Collective& collective, const at::Tensor& shard, at::Tensor& full) {
  Tensor source = locate(shard), target = locate(full);
  Chunks chunks{source.bytes, kStagingBytes};
  auto fill = [&](int64_t chunk) {
    copy_bytes(staging(rank()), source.data + chunks.begin(chunk), chunks.length(chunk));
  };
  auto drain = [&](int64_t chunk) {
    for (int rank = 0; rank < size(); ++rank) {
      copy_bytes(target.data + rank * source.bytes + chunks.begin(chunk), staging(rank), chunks.length(chunk));
    }
  };
  bool target_may_be_common = target.in_window() && !target.in_slice_of(rank());
  bool stage = source.bytes > 0 && !target_may_be_common && source.wants_staging(rank());
  Meeting meeting = meet(collective, source, target, stage, fill);
  if (meeting.one_target) {
    gather_in_place(source, target, meeting);
  } else if (meeting.sources_visible) {
    for (int rank = 0; rank < size(); ++rank)
      copy_bytes(target.data + rank * source.bytes, meeting.source(rank), source.bytes);
    control_.barrier();
  } else {
    through_staging(meeting.all_staged, chunks.count(), fill, drain);
  }
  return {};
}

/// All ranks gather into the same memory: where the shards lie there already, to have met is all.
void SharedMemory::gather_in_place(const Tensor& shard, const Tensor& full, const Meeting& meeting) {
  bool all_in_place = true;
  for (int rank = 0; rank < size(); ++rank) {
    all_in_place &= meeting.sources_visible && meeting.source(rank) == full.data + rank * shard.bytes;
  }
  if (all_in_place) return;
  copy_bytes(full.data + rank() * shard.bytes, shard.data, shard.bytes);
  control_.barrier();
}

/// How slices of a tensor go through the staging area, one chunk of each at a time.
struct SharedMemory::Slices {
  const SharedMemory& group;
  const std::byte* full;
  Chunks chunks;  // of one slice

  Slices(const SharedMemory& group, const Tensor& full, int64_t slice_bytes)
      : group(group), full(full.data), chunks{slice_bytes, aligned_down(kStagingBytes / group.size())} {}

  const std::byte* own(int64_t chunk, int rank) const { return full + rank * chunks.bytes + chunks.begin(chunk); }
  /// What `from` has staged for `to`.
  std::byte* staged(int from, int to) const { return group.staging(from) + to * chunks.chunk; }

  void fill(int64_t chunk) const {
    for (int to = 0; to < group.size(); ++to) {
      if (to != group.rank()) copy_bytes(staged(group.rank(), to), own(chunk, to), chunks.length(chunk));
    }
  }
  /// This rank's slice as `from` has it.
  const std::byte* drain(int64_t chunk, int from) const {
    return from == group.rank() ? own(chunk, from) : staged(from, group.rank());
  }
};

Work SharedMemory::reduce_scatter(const Collective& collective, const at::Tensor& full, at::Tensor& shard) {
  Tensor source = locate(full), target = locate(shard);
  Slices slices(*this, source, target.bytes);
  auto item = static_cast<int64_t>(full.element_size());
  std::vector<const void*> sources(static_cast<size_t>(size()));
  auto sum = [&](std::byte* to, int64_t bytes) {
    reduce(to, sources.data(), size(), bytes / item, collective.dtype, collective.reduce, collective.accumulate);
  };
  auto fill = [&](int64_t chunk) { slices.fill(chunk); };
  auto drain = [&](int64_t chunk) {
    for (int from = 0; from < size(); ++from) sources[static_cast<size_t>(from)] = slices.drain(chunk, from);
    sum(target.data + slices.chunks.begin(chunk), slices.chunks.length(chunk));
  };
  Meeting meeting = meet(collective, source, target, source.bytes > 0 && source.wants_staging(rank()), fill);
  if (meeting.sources_visible) {
    for (int from = 0; from < size(); ++from) {
      sources[static_cast<size_t>(from)] = meeting.source(from) + rank() * target.bytes;
    }
    sum(target.data, target.bytes);
    control_.barrier();  // before anybody writes its tensor again
  } else {
    through_staging(meeting.all_staged, slices.chunks.count(), fill, drain);
  }
  return {};
}

Work SharedMemory::all_to_all(const Collective& collective, const at::Tensor& input, at::Tensor& output) {
  Tensor source = locate(input), target = locate(output);
  int64_t slice = source.bytes / size();
  Slices slices(*this, source, slice);
  auto fill = [&](int64_t chunk) { slices.fill(chunk); };
  auto drain = [&](int64_t chunk) {
    for (int from = 0; from < size(); ++from) {
      copy_bytes(target.data + from * slice + slices.chunks.begin(chunk), slices.drain(chunk, from),
                 slices.chunks.length(chunk));
    }
  };
  Meeting meeting = meet(collective, source, target, slice > 0 && source.wants_staging(rank()), fill);
  if (meeting.sources_visible) {
    for (int from = 0; from < size(); ++from)
      copy_bytes(target.data + from * slice, meeting.source(from) + rank() * slice, slice);
    control_.barrier();
  } else {
    through_staging(meeting.all_staged, slices.chunks.count(), fill, drain);
  }
  return {};
}

Work SharedMemory::broadcast(const Collective& collective, at::Tensor& tensor) {
  Tensor ours = locate(tensor);
  Chunks chunks{ours.bytes, kStagingBytes};
  bool is_root = rank() == collective.root;
  auto fill = [&](int64_t chunk) {
    if (is_root) copy_bytes(staging(rank()), ours.data + chunks.begin(chunk), chunks.length(chunk));
  };
  auto drain = [&](int64_t chunk) {
    if (!is_root) copy_bytes(ours.data + chunks.begin(chunk), staging(collective.root), chunks.length(chunk));
  };
  Meeting meeting = meet(collective, ours, ours, ours.bytes > 0 && ours.wants_staging(rank()), fill);
  if (meeting.sources_visible) {
    copy_bytes(ours.data, meeting.source(collective.root), ours.bytes);
    control_.barrier();
  } else {
    through_staging(meeting.all_staged, chunks.count(), fill, drain);
  }
  return {};
}

Work SharedMemory::barrier(const Collective& collective) {
  control_.write(collective);
  control_.meet();
  return {};
}

Work SharedMemory::send(const Collective& collective, const at::Tensor& tensor) {
  return mailboxes_.send(*membership_, collective, static_cast<const std::byte*>(tensor.const_data_ptr()),
                         static_cast<int64_t>(tensor.nbytes()));
}

Work SharedMemory::recv(const Collective& collective, at::Tensor& tensor) {
  return mailboxes_.recv(*membership_, collective, static_cast<std::byte*>(tensor.data_ptr()),
                         static_cast<int64_t>(tensor.nbytes()));
}

}  // namespace echelon
