#include "launch/options/rank_view.h"

#include <fmt/format.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "launch/options/rank_status.h"

namespace echelon {

namespace {

void add(RankView& view, const LedgerEntry& entry) {
  bool pairwise = entry.op == "send" || entry.op == "recv";  // numbered by pair of ranks
  view.inside = entry.left_seconds == 0;
  view.collective = fmt::format("{} \"{}\", number {} of group {}", entry.op, entry.name, entry.sequence, entry.group);
  view.group = pairwise ? "" : entry.group;
  view.sequence = entry.sequence;
  if (!view.inside && !pairwise) view.completed[entry.group] = entry.sequence;
}

}  // namespace

std::vector<LedgerEntry> collectives_of(const std::string& status_folder, int rank, int64_t entries) {
  try {
    return read_ledger(join_path(status_folder, fmt::format("ledger-{:05}.bin", rank)), entries);
  } catch (const Error&) {
    return {};
  }
}

RankView read_rank_view(const std::string& status_folder, int rank) {
  RankView view{.rank = rank};
  if (auto progress = read_progress(join_path(status_folder, rank_file_stem(rank) + ".progress")))
    view.progress = *progress;
  for (const LedgerEntry& entry : collectives_of(status_folder, rank, Ledger::capacity)) add(view, entry);
  return view;
}

}  // namespace echelon
