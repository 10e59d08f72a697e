// What is under way on a GPU, watched from the host.
#pragma once

#include <chrono>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "comm/backends/membership.h"
#include "comm/backends/nccl_handles.h"
#include "comm/backends/signature.h"

namespace echelon {

/// A wait on a GPU can neither time out nor see NCCL's errors. A thread of this rank does: when an operation takes too
/// long or fails, it says so to the membership, where the next collective finds it, and aborts the communicator, which
/// lets the GPU go on.
class NcclWatch {
 public:
  NcclWatch(std::shared_ptr<Membership> membership, int gpu);

  void add(std::shared_ptr<Event> done, std::shared_ptr<NcclCommunicator> communicator, const Signature& signature);

 private:
  using Clock = std::chrono::steady_clock;
  struct Operation {
    std::shared_ptr<Event> done;
    std::shared_ptr<NcclCommunicator> communicator;
    Signature signature;
    Clock::time_point start = Clock::now();
  };

  void run(const std::stop_token& stop);
  /// Whether it needs no further look. Errors: Error::comm.
  bool is_over(const Operation& operation) const;
  void give_up(const Operation& operation, const Error& error);

  std::shared_ptr<Membership> membership_;
  int gpu_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::list<Operation> operations_;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace echelon
