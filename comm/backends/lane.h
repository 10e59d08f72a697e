// Collectives between nodes go on while the rank computes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "comm/ledger/ledger.h"
#include "comm/work.h"

namespace echelon {

/// A thread of the rank that takes collectives one after the other, in the order of the calls, as a GPU's stream does.
/// MPI serves one thread at a time, so the rank uses it only where the lane is empty: in run() and after drain().
class Lane {
 public:
  explicit Lane(Ledger& ledger) : ledger_(ledger) {}
  ~Lane() { close(); }

  /// Behind what is under way: runs `job` in the background, or at once where it moves too few bytes to be worth it. The
  /// ledger's newest entry is left when it ends. The job owns what it uses. After an error all later jobs end with the
  /// same.
  Work run(int64_t bytes, std::function<void()> job);
  /// Waits for all that is under way. Errors: theirs.
  void drain();
  /// Gives up what is under way, and ends the thread.
  void close();

  bool here() const;  ///< asked by a job in the background
  bool closed() const { return closed_.load(std::memory_order_relaxed); }
  /// Whether the rank waits, and its core is free.
  bool awaited() const { return awaited_.load(std::memory_order_relaxed); }

 private:
  static constexpr int64_t kWorthwhile = 16 << 10;

  struct Entry {
    std::function<void()> job;
    int64_t ticket;  ///< of the ledger
    std::promise<void> done;
  };

  Work start(std::function<void()> job);
  void work_through();
  void carry_out(Entry& entry);
  void await(const std::shared_future<void>& done);

  Ledger& ledger_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> entries_;
  std::shared_future<void> last_;
  std::exception_ptr failed_;  // the thread's alone
  std::atomic<bool> closed_ = false, awaited_ = false;
};

}  // namespace echelon
