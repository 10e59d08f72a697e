#include "comm/backends/lane.h"

#include <omp.h>

#include <utility>

#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

namespace echelon {

namespace {

thread_local const Lane* lane_of_this_thread = nullptr;

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
