// What ranks leave in the folder for reports, read while they run or after they died.
#include <fstream>

#include <fmt/format.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "launch/command/liveness.h"

namespace echelon {

namespace {

constexpr int64_t kRecordedCollectives = 32;

// 0: it is gone.
char process_state(int64_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string stat;
  std::getline(file, stat);
  size_t name_end = stat.rfind(')');  // the name may hold anything
  return name_end == std::string::npos || name_end + 2 >= stat.size() ? '\0' : stat[name_end + 2];
}

}  // namespace

std::vector<RankView> look_at_ranks(const std::string& status_folder) {
  std::vector<RankView> views;
  for (const RankReport& report : read_rank_reports(status_folder)) {
    if (report.exit_code || report.host != host_name()) continue;
    views.push_back(read_rank_view(status_folder, report.rank));
    // A view's state is compared: what only alternates between running and sleeping has not come on.
    views.back().process_state = process_state(report.pid) == 'T' ? 'T' : 'R';
  }
  return views;
}

std::string flight_record(const std::string& status_folder) {
  std::string text;
  for (const RankReport& report : read_rank_reports(status_folder)) {
    auto progress = read_progress(join_path(status_folder, rank_file_stem(report.rank) + ".progress"));
    std::string at = progress ? fmt::format("{} of step {}", name_of(progress->phase), progress->step) : "start";
    text += fmt::format("rank {}, process {} on {}, in {}\n", report.rank, report.pid, printable(report.host), at);
    for (const LedgerEntry& entry : collectives_of(status_folder, report.rank, kRecordedCollectives))
      text += "  " + entry.text() + "\n";
  }
  return text;
}

}  // namespace echelon
