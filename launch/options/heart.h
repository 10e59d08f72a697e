// A rank's side of the heartbeats.
#pragma once

#include <condition_variable>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

#include "cluster/base/descriptor.h"
#include "launch/options/heartbeat.h"

namespace echelon {

/// A thread that tells a launcher on another machine twice a second how far this rank is, from the files in which the
/// rank's own thread writes that down: a rank that stands still is heard, and does not come on. Where the launcher is
/// on this machine, or asks for nothing, there is no thread. What cannot be sent is not an error: the launcher knows
/// what silence means.
class Heart {
 public:
  Heart(const std::string& status_folder, int rank);
  ~Heart();

 private:
  void beat_until_stopped(const std::stop_token& stop);
  void send(bool last);

  std::string status_folder_;
  int rank_;
  ControlPlane control_;
  Descriptor socket_;
  int64_t number_ = 0;
  std::mutex mutex_;
  std::condition_variable_any stopped_;
  std::jthread thread_;
};

}  // namespace echelon
