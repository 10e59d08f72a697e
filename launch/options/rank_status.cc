#include "launch/options/rank_status.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <unistd.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "cluster/base/json.h"

namespace echelon {

namespace {

double seconds_since_1970() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

RankReport parse_report(const std::string& path) {
  Json json = parse_json(read_file(path, Error::Kind::storage, 1 << 20), path, Error::Kind::storage);
  RankReport report;
  report.rank = static_cast<int>(json_integer(json, "rank", path, 0, 1 << 20));
  report.pid = json_integer(json, "pid", path, 1, 1LL << 32);
  report.host = json_string(json, "host", path);
  report.sentence = json_string(json, "error", path);
  report.ended = json_number(json, "ended", path, 0, 1e18);
  int64_t exit_code = json_integer(json, "exit", path, 0, 255, -1);
  if (exit_code >= 0) report.exit_code = static_cast<int>(exit_code);
  return report;
}

}  // namespace

std::string rank_file_stem(int rank) { return fmt::format("rank-{:05d}", rank); }

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

RankStatus::RankStatus(std::string folder, int rank) : folder_(std::move(folder)), rank_(rank) { write({}, ""); }

void RankStatus::ended(int exit_code, const std::string& sentence) const { write(exit_code, sentence); }

void RankStatus::write(std::optional<int> exit_code, const std::string& sentence) const {
  if (folder_.empty()) return;
  Json json = {{"rank", rank_},
               {"pid", getpid()},
               {"host", host_name()},
               {"exit", nullptr},
               {"error", printable(sentence)},
               {"ended", seconds_since_1970()}};
  if (exit_code) json["exit"] = *exit_code;
  std::string path = join_path(folder_, rank_file_stem(rank_) + ".status");
  // Renamed so that the launcher never reads half of it; not synced, since it need not outlive the machine.
  {
    std::ofstream file(path + ".new", std::ios::trunc);
    file << json.dump(-1, ' ', false, Json::error_handler_t::replace);
    if (!file.flush()) return;
  }
  std::error_code ignored;
  std::filesystem::rename(path + ".new", path, ignored);
}

std::vector<RankReport> read_rank_reports(const std::string& folder) {
  std::vector<RankReport> reports;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (entry.path().extension() != ".status") continue;
    try {
      reports.push_back(parse_report(entry.path().string()));
    } catch (const Error&) {
      continue;  // another program's file, or one that is gone again
    }
  }
  std::sort(reports.begin(), reports.end(), [](const RankReport& a, const RankReport& b) { return a.rank < b.rank; });
  return reports;
}

}  // namespace echelon
