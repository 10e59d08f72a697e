// The folder of a run, held by one live run at a time.
#pragma once

#include <cstdint>
#include <string>

#include "cluster/base/descriptor.h"
#include "cluster/base/error.h"

namespace echelon {

/// Who holds a run folder; written to `owner.json`.
struct RunOwner {
  std::string host;
  std::string boot_id;  ///< of the host's running kernel: a pid means nothing after a restart
  int64_t pid = 0;
  int64_t process_start = 0;  ///< clock ticks since boot: tells a process from a later one with the same pid
  std::string started;        ///< UTC, for people

  static RunOwner this_process();
  /// Whether that very process still runs on this machine. False for owners on other hosts, of whom only the lock
  /// tells.
  bool is_alive_here() const;
  std::string describe() const;  ///< "process 4711 on host a, since 2025-11-24T07:00:00Z"
};

/// Holds a run folder until destroyed. The holder has a lock, which the system drops when the process dies, and an
/// `owner.json`, which says to people who it is; a file left by a dead owner is taken over.
class RunFolder {
 public:
  /// Creates the folder if it is not there; what is created is closed to other users (umask 027).
  /// Errors: Error::storage naming the owner when a live run holds it; Error::recipe when the folder belongs to another
  /// user or anyone may write to it, unless `trusted`.
  static RunFolder hold(const std::string& path, bool trusted = false);

  RunFolder(RunFolder&& other) noexcept;
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();

  const std::string& path() const { return path_; }
  /// The dead owner whose folder this was; "" when it was free.
  const std::string& taken_over_from() const { return taken_over_from_; }

 private:
  RunFolder() = default;

  std::string path_, taken_over_from_;
  Descriptor lock_;
};

/// Who holds the folder now: "" when nobody does. For `inspect`; takes nothing.
std::string holder_of(const std::string& path);

}  // namespace echelon
