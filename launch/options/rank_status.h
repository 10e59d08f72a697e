// What a rank leaves behind for the launcher: that it lives, and how it ended.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace echelon {

/// One rank's file `rank-00003.status` in a folder that the launcher made for this job. Written when the rank starts
/// and again when it ends by itself; a rank that dies leaves the first. Without a folder (a rank started by hand)
/// nothing is written. Failing to write is not an error: the launcher then learns less.
class RankStatus {
 public:
  RankStatus(std::string folder, int rank);
  /// `sentence` is that of the error that ended the rank, empty when there is none.
  void ended(int exit_code, const std::string& sentence) const;

 private:
  void write(std::optional<int> exit_code, const std::string& sentence) const;

  std::string folder_;
  int rank_;
};

struct RankReport {
  int rank = -1;
  int64_t pid = 0;
  std::string host;
  std::optional<int> exit_code;  ///< absent: it runs, or it died
  std::string sentence;
  double ended = 0;  ///< seconds since 1970
};

/// The reports in a folder, by rank; what cannot be read is left out.
std::vector<RankReport> read_rank_reports(const std::string& folder);

/// The name of this machine, as ranks report it.
std::string host_name();

/// "rank-00003".
std::string rank_file_stem(int rank);

}  // namespace echelon
