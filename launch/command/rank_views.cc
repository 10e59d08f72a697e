// What ranks leave in the folder for reports, read while they run or after they died.
#include <csignal>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "comm/ledger/ledger.h"
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

std::vector<LedgerEntry> collectives_of(const std::string& status_folder, int rank, int64_t entries) {
  try {
    return read_ledger(join_path(status_folder, fmt::format("ledger-{:05}.bin", rank)), entries);
  } catch (const Error&) {
    return {};
  }
}

void read_collectives(const std::string& status_folder, RankView& view) {
  for (const LedgerEntry& entry : collectives_of(status_folder, view.rank, Ledger::capacity)) {
    bool pairwise = entry.op == "send" || entry.op == "recv";  // numbered by pair of ranks
    view.inside = entry.left_seconds == 0;
    view.collective =
        fmt::format("{} \"{}\", number {} of group {}", entry.op, entry.name, entry.sequence, entry.group);
    view.group = pairwise ? "" : entry.group;
    view.sequence = entry.sequence;
    if (!view.inside && !pairwise) view.completed[entry.group] = entry.sequence;
  }
}

}  // namespace

std::vector<RankView> look_at_ranks(const std::string& status_folder) {
  std::vector<RankView> views;
  for (const RankReport& report : read_rank_reports(status_folder)) {
    if (report.exit_code || report.host != host_name()) continue;
    RankView view{.rank = report.rank, .process_state = process_state(report.pid)};
    if (auto progress = read_progress(join_path(status_folder, rank_file_stem(report.rank) + ".progress")))
      view.progress = *progress;
    read_collectives(status_folder, view);
    views.push_back(view);
  }
  // A view's state is compared: what only alternates between running and sleeping has not come on.
  for (RankView& view : views) {
    if (view.process_state != 'T') view.process_state = 'R';
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
