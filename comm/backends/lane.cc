#include "comm/backends/lane.h"

#include <omp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

namespace echelon {

namespace {

thread_local const Lane* lane_of_this_thread = nullptr;

/// sched_attr of sched_setattr(2), which the C library does not declare.
struct SchedulingAttributes {
  uint32_t size = sizeof(SchedulingAttributes), policy = SCHED_OTHER;
  uint64_t flags = 0;
  int32_t nice = 0;
  uint32_t priority = 0;
  uint64_t runtime = 0, deadline = 0, period = 0;  // ns
};

/// The thread naps, looks after MPI for a moment, and naps again. Where it shares its core with the rank, it is not to
/// wait for a whole turn of the rank each time. Linux heeds it since 6.12; without, it is late.
void ask_for_short_turns() {
  constexpr unsigned long kNanoseconds = 100'000;
  SchedulingAttributes attributes{.nice = ::getpriority(PRIO_PROCESS, 0), .runtime = kNanoseconds};
  ::syscall(SYS_sched_setattr, 0, &attributes, 0);
  ::prctl(PR_SET_TIMERSLACK, kNanoseconds / 100);
}

}  // namespace

bool Lane::here() const { return lane_of_this_thread == this; }

Work Lane::run(int64_t bytes, std::function<void()> job) {
  if (bytes >= kWorthwhile && !here()) return start(std::move(job));
  drain();
  job();
  return {};
}

Work Lane::start(std::function<void()> job) {
  if (!thread_.joinable()) thread_ = std::thread([this] { work_through(); });
  Entry entry{std::move(job), ledger_.newest(), {}};
  last_ = entry.done.get_future().share();
  {
    std::lock_guard lock(mutex_);
    entries_.push_back(std::move(entry));
  }
  changed_.notify_one();
  return Work([this, done = last_] { await(done); });
}

void Lane::drain() {
  if (!here() && last_.valid()) await(last_);
}

void Lane::await(const std::shared_future<void>& done) {
  awaited_ = true;
  done.wait();
  awaited_ = false;
  done.get();
}

void Lane::work_through() {
  lane_of_this_thread = this;
  ask_for_short_turns();
  // The other threads compute. LibTorch sets its own number at a thread's first loop.
  at::parallel_for(0, 1, 1, [](int64_t, int64_t) {});
  omp_set_num_threads(1);
  c10::AutoGradMode no_gradients(false);
  while (true) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return closed() || !entries_.empty(); });
    if (entries_.empty()) return;
    Entry entry = std::move(entries_.front());
    entries_.pop_front();
    lock.unlock();
    carry_out(entry);
  }
}

void Lane::carry_out(Entry& entry) {
  try {
    if (failed_) std::rethrow_exception(failed_);
    entry.job();
    ledger_.leave(entry.ticket);
  } catch (...) {
    failed_ = std::current_exception();
  }
  // What it holds may be MPI's, which the rank uses again as soon as this is done.
  entry.job = nullptr;
  failed_ ? entry.done.set_exception(failed_) : entry.done.set_value();
}

void Lane::close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

}  // namespace echelon
