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

std::vector<LedgerEntry> collectives_of(const std::string& status_folder, int rank) {
  try {
    return read_ledger(join_path(status_folder, fmt::format("ledger-{:05}.bin", rank)), Ledger::capacity);
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

SeenRank read_rank(const std::string& status_folder, int rank) {
  SeenRank seen{.view = {.rank = rank}, .collectives = collectives_of(status_folder, rank)};
  if (auto progress = read_progress(join_path(status_folder, rank_file_stem(rank) + ".progress")))
    seen.view.progress = *progress;
  for (const LedgerEntry& entry : seen.collectives) add(seen.view, entry);
  return seen;
}

}  // namespace echelon
