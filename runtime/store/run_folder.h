// The folder of a run, held by one live run at a time.
#pragma once

#include <cstdint>
#include <string>

#include "cluster/base/descriptor.h"
#include "cluster/base/error.h"
#include "runtime/store/lease.h"

namespace echelon {

/// Errors: Error::recipe when the folder belongs to another user, or anyone may write to it.
void refuse_unsafe_folder(const std::string& path);

struct HoldOptions {
  bool trusted = false;  ///< accept a folder that another user owns or that anyone may write to
  /// Silence after which an owner on another machine counts as dead, by our own clock that never goes back.
  double lease_seconds = 60;
  RunOwner self = RunOwner::this_process();
};

/// Holds a run folder until destroyed. The holder has a numbered claim (lease.h), which it refreshes, and a lock, which
/// the system drops when the process dies. A dead owner's folder is taken over: at once when it ran on this machine and
/// its process or the kernel it ran under is gone, after `lease_seconds` of silence when it ran on another. On file
/// systems without locks the claims alone decide. An owner that was only frozen finds the higher claim when it wakes:
/// its commits are refused (CheckpointStore), and what it was writing has been removed.
class RunFolder {
 public:
  /// Creates the folder if it is not there; what is created is closed to other users (umask 027). Waits while it cannot
  /// tell whether an owner on another machine lives.
  /// Errors: Error::storage naming the owner when a live run holds it; Error::recipe when the folder belongs to another
  /// user or anyone may write to it, unless trusted.
  static RunFolder hold(const std::string& path, const HoldOptions& options = {});

  RunFolder(RunFolder&& other) noexcept;
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();

  const std::string& path() const { return path_; }
  int64_t epoch() const { return epoch_; }
  /// Errors: Error::storage naming the new owner when another run has taken the folder over.
  void check_held() const { check_claim(path_, epoch_); }
  /// The dead owner whose folder this was; "" when it was free.
  const std::string& taken_over_from() const { return taken_over_from_; }

 private:
  RunFolder() = default;

  std::string path_, taken_over_from_;
  RunOwner self_;
  int64_t epoch_ = 0;
  Descriptor lock_;
  std::unique_ptr<Heartbeat> heartbeat_;
};

/// Who holds the folder now: "" when nobody does. For `inspect`; takes nothing.
std::string holder_of(const std::string& path);

}  // namespace echelon
