#include "launch/command/monitor.h"

namespace echelon {

Monitor::Monitor(const std::vector<std::string>& machines, const std::string& status_folder)
    : status_folder_(status_folder), heartbeats_(Heartbeats::listen(machines, status_folder)) {}

std::vector<std::string> Monitor::look(double now) {
  std::vector<std::string> said;
  std::vector<SeenRank> here = look_at_ranks(status_folder_);
  if (auto words = stragglers_.look(now, here)) said.push_back(*words);
  std::vector<RankView> views;
  for (SeenRank& seen : here) views.push_back(std::move(seen.view));
  listen(now, views, said);
  hang_ = liveness_.look(now, views);
  return said;
}

void Monitor::listen(double now, std::vector<RankView>& views, std::vector<std::string>& said) {
  if (!heartbeats_) return;
  HeardRanks& heard = heartbeats_->heard(now);
  for (std::string& line : heard.news(now)) said.push_back(std::move(line));
  for (RankView& view : heard.views(now)) views.push_back(std::move(view));
  if (auto words = network_.look(now, views)) said.push_back(*words);
}

std::optional<LostMachine> Monitor::lost_machine(double now) {
  return heartbeats_ ? heartbeats_->heard(now).lost_machine(now) : std::nullopt;
}

}  // namespace echelon
