#include "comm/backends/membership.h"

#include <sched.h>
#include <unistd.h>

#include <cstring>

namespace echelon {

bool Failure::mark(int rank, std::string_view text) {
  int32_t none = 0;
  if (!state_.compare_exchange_strong(none, kMarking)) return false;
  rank_ = rank;
  std::memcpy(text_, text.data(), std::min(text.size(), sizeof text_ - 1));
  state_.store(kMarked, std::memory_order_release);
  return true;
}

Error Failure::error() const {
  return Error::comm("",
                     fmt::format("rank {} has failed: {}", rank_, std::string(text_, strnlen(text_, sizeof text_))));
}

Membership::Membership(int world_rank, double timeout_seconds, bool checked, const std::string& ledger_path)
    : world_rank(world_rank),
      timeout_seconds(timeout_seconds),
      checked(checked),
      failure(std::make_shared<Failure>()),
      ledger(ledger_path) {}

void Membership::advance_transfers() {
  for (size_t i = 0; i < transfers_.size();) {
    // Taken off first: a transfer that throws is over.
    Transfer* transfer = transfers_[i];
    transfers_.erase(transfers_.begin() + static_cast<std::ptrdiff_t>(i));
    if (!transfer->advance()) transfers_.insert(transfers_.begin() + static_cast<std::ptrdiff_t>(i++), transfer);
  }
}

bool Membership::pause(int64_t turn, Clock::time_point start) {
  bool in_background = lane.here();
  if (in_background && lane.closed()) throw Error::comm("", "given up, as the rank has left its job");
  if (turn < kYields && (!in_background || lane.awaited())) {
    ::sched_yield();
  } else {
    ::usleep(100);
  }
  if (!in_background && !transfers_.empty()) advance_transfers();
  if (turn % 64 != 0) return true;
  if (failure->happened()) throw failure->error();
  return std::chrono::duration<double>(Clock::now() - start).count() < timeout_seconds;
}

Error Membership::too_late(const std::string& waits_for) {
  Error error = Error::comm("", fmt::format("waited {} s for {}", timeout_seconds, waits_for));
  failure->mark(world_rank, error.what());
  return error;
}

Work Membership::start(std::shared_ptr<Transfer> transfer) {
  if (transfer->advance()) return {};
  transfers_.push_back(transfer.get());
  // However the Work ends, its transfer leaves the list before the caller's tensor can be freed.
  std::shared_ptr<Transfer> listed(transfer.get(),
                                   [self = shared_from_this(), transfer](Transfer* gone) { self->forget(gone); });
  return Work([this, listed] { wait(*listed); });
}

void Membership::wait(Transfer& transfer) {
  auto done = [&] {
    advance_transfers();
    return std::find(transfers_.begin(), transfers_.end(), &transfer) == transfers_.end();
  };
  wait_until(done, [&] { return transfer.waits_for(); });
}

}  // namespace echelon
