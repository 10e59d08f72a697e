// What the launcher hears from ranks on other machines.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/base/descriptor.h"
#include "launch/options/heartbeat.h"

namespace echelon {

/// A machine none of whose ranks was heard of in the end.
struct LostMachine {
  std::string host;
  std::vector<int> ranks;
  double seconds = 0;  ///< since one of them was heard of
};

/// A state machine over datagrams: how each rank was heard of last. A rank that ends is forgotten.
class HeardRanks {
 public:
  explicit HeardRanks(std::string key) : key_(std::move(key)) {}

  /// `now`: seconds of a clock that never goes back. What this job did not seal, and what is older than the last, is
  /// dropped and counted.
  void take(std::string_view datagram, double now);
  /// A rank that was not heard of for 3 s has process_state '?'.
  std::vector<RankView> views(double now) const;
  /// Once a job has ended: the machine that was not heard of for longest, and longer than by chance.
  std::optional<LostMachine> lost_machine(double now) const;
  /// What is to be said since the last call: "rank 3 on n2: not heard of for 3 s", "…: heard of again".
  std::vector<std::string> news(double now);
  int64_t dropped() const { return dropped_; }

 private:
  struct Heard {
    RankView view;
    int64_t number = 0;
    double at = 0;
    bool ended = false, missed = false;
  };

  bool is_silent(const Heard& heard, double now) const;

  std::string key_;
  std::map<int, Heard> ranks_;
  int64_t dropped_ = 0;
  bool told_of_dropped_ = false;
};

/// The socket they come to.
class Heartbeats {
 public:
  /// Listens at the address by which one of `machines` is reached, and tells ranks in the folder for reports. Null when
  /// all of them are this machine. Errors: Error::storage, Error::recipe.
  static std::unique_ptr<Heartbeats> listen(const std::vector<std::string>& machines, const std::string& status_folder);

  /// Takes all that has come.
  HeardRanks& heard(double now);

 private:
  Heartbeats(Descriptor socket, const std::string& key) : socket_(std::move(socket)), heard_(key) {}

  Descriptor socket_;
  HeardRanks heard_;
};

}  // namespace echelon
