#include "runtime/checkpoint/snapshot.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "cluster/base/error.h"
#include "cluster/base/log.h"
#include "cluster/base/text.h"

namespace echelon {

void Snapshot::reserve(int64_t bytes) {
  if (memory_.defined() && memory_.numel() >= bytes) return;
  memory_ = at::Tensor();
  try {
    memory_ = at::empty({bytes}, at::kByte);
    std::memset(memory_.mutable_data_ptr(), 0, static_cast<size_t>(bytes));
  } catch (const c10::Error&) {
    throw Error::memory("checkpoint", fmt::format("no room for a copy of {}", human_bytes(bytes)))
        .remedy("set checkpoint.background=false: training then waits while a checkpoint is written");
  }
}

void Snapshot::take(Trainer& trainer, ShardPlan plan) {
  plan_ = std::move(plan);
  pieces_.clear();
  sources_.clear();
  auto* place = static_cast<std::byte*>(memory_.mutable_data_ptr());
  size_t next = 0;
  visit_planned(trainer, [&](const std::string& name, const at::Tensor& values, Lasts lasts) {
    const TensorEntry& entry = plan_.tensors.at(next++);
    EC_CHECK(entry.name == name, "planned {}, got {}", entry.name, name);
    bool stays = lasts == Lasts::until_update && values.is_cpu() && values.is_contiguous();
    if (!stays) {
      at::from_blob(place, values.sizes(), entry.dtype == DType::F64 ? at::kDouble : at::kFloat).copy_(values);
    } else {
      sources_.push_back(values);
    }
    add_pieces(entry.name, values, place, !stays);
    place += values.nbytes();
  });
}

void Snapshot::add_pieces(const std::string& name, const at::Tensor& values, std::byte* copy, bool copied) {
  constexpr size_t kPieceBytes = 4 << 20;
  const auto* here = copied ? copy : static_cast<const std::byte*>(values.const_data_ptr());
  for (size_t offset = 0; offset < values.nbytes(); offset += kPieceBytes) {
    Piece& piece = pieces_.emplace_back();
    piece.name = &name;
    piece.offset = offset;
    piece.size = std::min(kPieceBytes, values.nbytes() - offset);
    piece.here = here + offset;
    piece.copy = copy + offset;
    if (copied) piece.state = State::copied;
  }
}

void Snapshot::let_go() {
  // From the end, as the other comes from the begin.
  auto count = static_cast<int64_t>(pieces_.size());
  at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Piece& piece = pieces_[count - 1 - i];
      if (!piece.begin()) continue;
      std::memcpy(piece.copy, piece.here, piece.size);
      piece.end(State::copied);
    }
  });
  for (Piece& piece : pieces_) piece.state.wait(State::in_use);
  sources_.clear();
}

void Snapshot::visit(const Write& write) {
  for (Piece& piece : pieces_) {
    bool here = piece.begin();
    if (!here) piece.state.wait(State::in_use);
    // Also behind an error of `write`, nobody waits for a piece for ever.
    auto ended = std::unique_ptr<Piece, void (*)(Piece*)>(&piece, [](Piece* p) { p->end(State::done); });
    write(*piece.name, here ? piece.here : piece.copy, piece.size, piece.offset);
  }
}

}  // namespace echelon
