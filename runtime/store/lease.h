// Claims to a run folder: numbered, created exclusively, refreshed while their owner lives; the highest counts.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace echelon {

/// Who holds a run folder.
struct RunOwner {
  std::string host;
  std::string boot_id;  ///< of the host's running kernel: a pid means nothing after a restart
  int64_t pid = 0;
  int64_t process_start = 0;  ///< clock ticks since boot: tells a process from a later one with the same pid
  std::string started;        ///< UTC, for people
  std::string job;            ///< of the scheduler; empty: none

  static RunOwner this_process(const std::string& job = "");
  bool is_on_host_of(const RunOwner& other) const { return host == other.host || boot_id == other.boot_id; }
  /// Whether that very process still runs on this machine. False for owners on other machines.
  bool is_alive_here() const;
  std::string describe() const;  ///< "process 4711 on host a (job 17), since 2025-11-24T07:00:00Z"
};

/// One claim, the file `lease/epoch-00000007.json` of a run folder.
struct Claim {
  int64_t epoch = 0;
  std::optional<RunOwner> owner;  ///< nothing when the file is damaged, or is being written
  bool is_released = false;       ///< its owner left in order
  int64_t beat = 0;               ///< changes whenever the owner refreshes it; a number to compare, no time
};

/// The claim with the highest epoch; nothing when nobody ever held the folder.
std::optional<Claim> newest_claim(const std::string& run_folder);

/// Creates the claim of that epoch and forgets older ones. False when another has it, or a higher one exists.
/// Errors: Error::storage.
bool make_claim(const std::string& run_folder, int64_t epoch, const RunOwner& owner);

/// Says that the owner left in order; nothing when another has taken over.
void release_claim(const std::string& run_folder, int64_t epoch, const RunOwner& owner);

/// Errors: Error::storage that names the new owner when a claim higher than `epoch` exists: this run was given up.
void check_claim(const std::string& run_folder, int64_t epoch);

/// Refreshes a claim from a thread of its own until destroyed.
class Heartbeat {
 public:
  Heartbeat(const std::string& run_folder, int64_t epoch, double interval_seconds);
  ~Heartbeat();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace echelon
