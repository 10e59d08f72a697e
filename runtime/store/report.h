// report.html: the curves of a run and where its time went, in one file that needs no network.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace echelon {

struct ReportText {
  std::string title;                                       ///< the run's name
  std::vector<std::pair<std::string, std::string>> facts;  ///< rows of the table: "parameters" "124.4M", …
  std::string recipe;                                      ///< the resolved recipe, shown folded
};

/// Writes `html_path` from `metrics_path` (metrics.jsonl). Errors: Error::storage.
void write_report(const std::string& metrics_path, const std::string& html_path, const ReportText& text);

}  // namespace echelon
