// How ranks on other machines tell the launcher that they come on: datagrams that only this job can write.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "launch/options/rank_view.h"

namespace echelon {

/// Where the launcher listens, and the key of the job. Kept in a file `control.json` (mode 0600) of the folder for
/// reports: arguments and environment are seen by others.
struct ControlPlane {
  std::string host;     ///< the launcher's; ranks there are looked at and need not tell
  std::string address;  ///< numeric
  int port = 0;
  std::string key;  ///< 32 bytes

  static std::string new_key();
  /// Errors: Error::storage.
  void write(const std::string& status_folder) const;
  /// Nothing when there is none, or it cannot be read.
  static std::optional<ControlPlane> read(const std::string& status_folder);
};

struct Beat {
  int64_t number = 0;  ///< from 1; rises with each of a rank, so that an old one is not taken again
  bool last = false;   ///< the rank ends
  RankView view;
};

/// The datagram: JSON behind a keyed hash of it (HMAC-SHA-512-256).
std::string seal(const Beat& heartbeat, const std::string& key);
/// Nothing unless it was sealed with this key.
std::optional<Beat> unseal(std::string_view datagram, const std::string& key);

}  // namespace echelon
