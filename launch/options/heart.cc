#include "launch/options/heart.h"

#include <chrono>
#include <csignal>

#include <sys/socket.h>

#include "launch/options/internet.h"
#include "launch/options/rank_status.h"

namespace echelon {

namespace {

constexpr std::chrono::milliseconds kBetweenBeats{500};

/// Signals are for the rank's own threads.
class NoSignals {
 public:
  NoSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~NoSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

}  // namespace

Heart::Heart(const std::string& status_folder, int rank) : status_folder_(status_folder), rank_(rank) {
  auto control = ControlPlane::read(status_folder);
  if (!control || control->host == host_name()) return;
  control_ = *control;
  socket_ = connect_to({.address = control_.address, .port = control_.port});
  if (!socket_.is_open()) return;
  NoSignals of_the_thread;
  thread_ = std::jthread([this](const std::stop_token& stop) { beat_until_stopped(stop); });
}

Heart::~Heart() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
  send(true);
}

void Heart::beat_until_stopped(const std::stop_token& stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    send(false);
    stopped_.wait_for(lock, stop, kBetweenBeats, [] { return false; });
  }
}

void Heart::send(bool last) {
  Beat heartbeat{.number = ++number_, .last = last, .view = read_rank(status_folder_, rank_).view};
  heartbeat.view.host = host_name();
  std::string datagram = seal(heartbeat, control_.key);
  ::send(socket_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace echelon
