// Windows and sub-groups: how ranks that share memory come by more of it.
#include <algorithm>
#include <cstring>
#include <tuple>

#include <ATen/ATen.h>

#include "comm/backends/shared_memory.h"

namespace echelon {

NodeMemory SharedMemory::share(const std::vector<int>& members, int64_t bytes) {
  int maker = members.front();
  Note& note = control_.mine();
  NodeMemory memory;
  std::exception_ptr failure;
  // An error waits until all have passed both barriers: a rank that left at once would leave the others waiting.
  auto attempt = [&](const auto& action) {
    try {
      action();
    } catch (const Error&) {
      failure = std::current_exception();
      note.failed = true;
    }
  };
  if (rank() == maker) attempt([&] { memory = source_->make(bytes, note.ticket); });
  control_.barrier();
  const Note& makers = control_.note(maker);
  if (rank() != maker && !makers.failed) attempt([&] { memory = source_->open(bytes, makers.ticket); });
  control_.barrier();
  if (rank() == maker && note.ticket != 0) source_->close(note.ticket);
  if (failure) std::rethrow_exception(failure);
  for (int member : members) {
    if (control_.note(member).failed) {
      throw Error::memory("", fmt::format("rank {} cannot have {} bytes of common memory", member, bytes));
    }
  }
  return memory;
}

std::shared_ptr<Backend> SharedMemory::split(const Collective& collective, int color, int key) {
  Note& note = control_.write(collective);
  note.color = color;
  note.key = key;
  control_.meet();
  std::vector<int> members;
  for (int rank = 0; rank < size(); ++rank) {
    if (control_.note(rank).color == color) members.push_back(rank);
  }
  std::stable_sort(members.begin(), members.end(),
                   [&](int a, int b) { return control_.note(a).key < control_.note(b).key; });
  auto new_rank = static_cast<int>(std::find(members.begin(), members.end(), rank()) - members.begin());
  auto new_size = static_cast<int>(members.size());
  NodeMemory page = share(members, page_bytes(new_size));
  return std::make_shared<SharedMemory>(membership_, source_, std::move(page), new_rank, new_size);
}

Window SharedMemory::allocate(const Collective& collective, int64_t elements) {
  control_.write(collective);
  control_.meet();
  int64_t slice = elements * static_cast<int64_t>(c10::elementSize(collective.dtype));
  int64_t bytes = std::max<int64_t>(64, slice * size());
  std::vector<int> everyone(static_cast<size_t>(size()));
  for (int rank = 0; rank < size(); ++rank) everyone[static_cast<size_t>(rank)] = rank;
  NodeMemory memory = WindowTable::list(windows_, share(everyone, bytes), bytes, slice, ++windows_made_);
  std::byte* mine = memory.get() + rank() * slice;
  std::memset(mine, 0, static_cast<size_t>(slice));  // its pages are placed near the rank that touches them first
  auto options = at::TensorOptions().dtype(collective.dtype);
  auto keep = [memory](void*) {};
  return {at::from_blob(mine, {elements}, keep, options),
          at::from_blob(memory.get(), {size() * elements}, keep, options)};
}

}  // namespace echelon
