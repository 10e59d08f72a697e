#include "comm/backends/nccl_watch.h"

namespace echelon {

NcclWatch::NcclWatch(std::shared_ptr<Membership> membership, int gpu)
    : membership_(std::move(membership)), gpu_(gpu), thread_([this](const std::stop_token& stop) { run(stop); }) {}

void NcclWatch::add(std::shared_ptr<Event> done, std::shared_ptr<NcclCommunicator> communicator,
                    const Signature& signature) {
  std::lock_guard lock(mutex_);
  operations_.push_back({std::move(done), std::move(communicator), signature});
  changed_.notify_one();
}

void NcclWatch::run(const std::stop_token& stop) {
  constexpr std::chrono::milliseconds kPause(20);
  cudaSetDevice(gpu_);
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    changed_.wait(lock, stop, [this] { return !operations_.empty(); });
    std::erase_if(operations_, [this](const Operation& operation) {
      try {
        return is_over(operation);
      } catch (const Error& error) {
        give_up(operation, error);
        return true;
      }
    });
    changed_.wait_for(lock, stop, kPause, [] { return false; });
  }
}

bool NcclWatch::is_over(const Operation& operation) const {
  if (operation.communicator->get() == nullptr) return true;
  ncclResult_t state = ncclSuccess;
  nccl_check(ncclCommGetAsyncError(operation.communicator->get(), &state), "ncclCommGetAsyncError");
  nccl_check(state, "NCCL");
  if (operation.done->passed()) return true;
  if (membership_->failure->happened()) throw membership_->failure->error();
  std::chrono::duration<double> waited = Clock::now() - operation.start;
  if (waited.count() <= membership_->timeout_seconds) return false;
  throw Error::comm("NCCL", fmt::format("waited {} s for the other ranks to take part in {}",
                                        membership_->timeout_seconds, operation.signature.text()));
}

void NcclWatch::give_up(const Operation& operation, const Error& error) {
  membership_->failure->mark(membership_->world_rank, error.what());
  operation.communicator->abort();
}

}  // namespace echelon
