// What ranks leave in the folder for reports, read while they run or after they died.
#include <algorithm>
#include <fstream>

#include <fmt/format.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "launch/command/liveness.h"

namespace echelon {

namespace {

constexpr size_t kRecordedCollectives = 32;

// 0: it is gone.
char process_state(int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string stat;
  std::getline(file, stat);
  size_t name_end = stat.rfind(')');  // the name may hold anything
  return name_end == std::string::npos || name_end + 2 >= stat.size() ? '\0' : stat[name_end + 2];
}

}  // namespace

std::vector<SeenRank> look_at_ranks(const std::string& status_folder) {
  std::vector<SeenRank> ranks;
  for (const RankReport& report : read_rank_reports(status_folder)) {
    if (report.exit_code || report.host != host_name()) continue;
    ranks.push_back(read_rank(status_folder, report.rank));
    // A view's state is compared: what only alternates between running and sleeping has not come on.
    ranks.back().view.process_state = process_state(report.pid) == 'T' ? 'T' : 'R';
  }
  return ranks;
}

std::string flight_record(const std::string& status_folder) {
  std::string text;
  for (const RankReport& report : read_rank_reports(status_folder)) {
    SeenRank seen = read_rank(status_folder, report.rank);
    const ProgressState& progress = seen.view.progress;
    std::string at = progress.step > 0 ? fmt::format("{} of step {}", name_of(progress.phase), progress.step) : "start";
    text += fmt::format("rank {}, process {} on {}, in {}\n", report.rank, report.pid, printable(report.host), at);
    size_t skipped = seen.collectives.size() - std::min(seen.collectives.size(), kRecordedCollectives);
    for (size_t i = skipped; i < seen.collectives.size(); ++i) text += "  " + seen.collectives[i].text() + "\n";
  }
  return text;
}

}  // namespace echelon
