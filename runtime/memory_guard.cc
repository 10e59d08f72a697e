#include "runtime/memory_guard.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "cluster/base/error.h"
#include "cluster/base/tiles.h"

namespace echelon {

namespace {

constexpr int64_t kTileElements = 16384;

const at::Tensor& tensor_of(Owned& owned, const std::string& name) {
  return name.empty() ? owned.shard->master() : owned.state.at(name.substr(1));
}

std::string hash_of(const at::Tensor& flat, int64_t begin, int64_t length) {
  size_t bytes = flat.element_size();
  const auto* first = static_cast<const std::byte*>(flat.const_data_ptr()) + begin * bytes;
  return hash_bytes({first, length * bytes});
}

}  // namespace

MemoryGuard::MemoryGuard(std::vector<Owned>& owned, double share, int rank) : rank_(rank) {
  for (Owned& one : owned) {
    visit_state(one, [&](const std::string& name, const at::Tensor& flat) {
      if (!flat.is_cpu()) return;
      memories_.push_back({&one, name, tiles_});
      tiles_ += (flat.numel() + kTileElements - 1) / kTileElements;
    });
  }
  each_time_ = std::min(tiles_, static_cast<int64_t>(std::ceil(share * static_cast<double>(tiles_))));
}

MemoryGuard::Tile MemoryGuard::tile(int64_t number) const {
  auto behind = std::upper_bound(memories_.begin(), memories_.end(), number,
                                 [](int64_t tile, const Memory& memory) { return tile < memory.first_tile; });
  const Memory& memory = *(behind - 1);
  int64_t begin = (number - memory.first_tile) * kTileElements;
  return {&memory, begin, std::min(kTileElements, tensor_of(*memory.owned, memory.name).numel() - begin), ""};
}

void MemoryGuard::keep(int64_t step) {
  step_ = step;
  guarded_.clear();
  for (int64_t i = 0; i < each_time_; ++i) guarded_.push_back(tile((next_ + i) % tiles_));
  if (tiles_ > 0) next_ = (next_ + each_time_) % tiles_;
  at::parallel_for(0, each_time_, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Tile& tile = guarded_[i];
      tile.hash = hash_of(tensor_of(*tile.memory->owned, tile.memory->name), tile.begin, tile.length);
    }
  });
}

void MemoryGuard::check() const {
  std::vector<char> changed(guarded_.size());
  at::parallel_for(0, std::ssize(guarded_), 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Tile& tile = guarded_[i];
      changed[i] = tile.hash != hash_of(tensor_of(*tile.memory->owned, tile.memory->name), tile.begin, tile.length);
    }
  });
  auto first = std::find(changed.begin(), changed.end(), 1);
  if (first != changed.end()) report(guarded_[first - changed.begin()]);
}

void MemoryGuard::report(const Tile& tile) const {
  int64_t end = tile.begin + tile.length;
  std::vector<std::string> names;
  for (const Segment& segment : tile.memory->owned->shard->segments()) {
    if (segment.offset < end && segment.offset + segment.length > tile.begin)
      names.push_back(segment.parameter->name() + tile.memory->name);
  }
  std::string place = names.empty() ? tile.memory->owned->shard->name() : names.front();
  if (names.size() > 1) place += fmt::format(" to {}", names.back());
  throw Error::comm(place, fmt::format("memory of rank {} changed after the update of step {}, in elements {} to {} of "
                                       "what it owns of {}",
                                       rank_, step_, tile.begin, end - 1, tile.memory->owned->shard->name()))
      .remedy("memory may be faulty; the run goes on from its last checkpoint");
}

}  // namespace echelon
