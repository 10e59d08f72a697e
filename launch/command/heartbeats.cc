#include "launch/command/heartbeats.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <sys/socket.h>

#include "launch/options/internet.h"
#include "launch/options/rank_status.h"

namespace echelon {

namespace {

constexpr double kLostSeconds = 0.7;      // more than lie between two heartbeats
constexpr int kMostAtOnce = 1 << 16;  // whoever floods us does not hold us up
constexpr size_t kMostMachinesTried = 16;  // names that nobody knows take seconds each

}  // namespace

void HeardRanks::take(std::string_view datagram, double now) {
  auto heartbeat = unseal(datagram, key_);
  if (!heartbeat || heartbeat->number <= ranks_[heartbeat->view.rank].number) {
    ++dropped_;
    return;
  }
  Heard& heard = ranks_[heartbeat->view.rank];
  heard.view = std::move(heartbeat->view);
  heard.number = heartbeat->number;
  heard.at = now;
  heard.ended = heartbeat->last;
}

bool HeardRanks::is_silent(const Heard& heard, double now) const {
  return !heard.ended && now - heard.at >= kUnheardSeconds;
}

std::vector<RankView> HeardRanks::views(double now) const {
  std::vector<RankView> views;
  for (const auto& [rank, heard] : ranks_) {
    if (heard.ended) continue;
    views.push_back(heard.view);
    if (is_silent(heard, now)) views.back().process_state = '?';
  }
  return views;
}

std::optional<LostMachine> HeardRanks::lost_machine(double now) const {
  std::map<std::string, LostMachine> machines;
  for (const auto& [rank, heard] : ranks_) {
    LostMachine unseen{.host = heard.view.host, .ranks = {}, .seconds = now};
    LostMachine& machine = machines.try_emplace(heard.view.host, unseen).first->second;
    machine.seconds = std::min(machine.seconds, heard.ended ? 0 : now - heard.at);
    machine.ranks.push_back(rank);
  }
  std::optional<LostMachine> lost;
  for (const auto& [host, machine] : machines) {
    if (machine.seconds >= std::max(kLostSeconds, lost ? lost->seconds : 0)) lost = machine;
  }
  return lost;
}

std::vector<std::string> HeardRanks::news(double now) {
  std::vector<std::string> lines;
  for (auto& [rank, heard] : ranks_) {
    bool silent = is_silent(heard, now);
    if (silent == std::exchange(heard.missed, silent)) continue;
    std::string what = silent ? fmt::format("not heard of for {:.0f} s", now - heard.at) : "heard of again";
    if (!heard.ended) lines.push_back(fmt::format("rank {} on {}: {}", rank, heard.view.host, what));
  }
  if (dropped_ > 0 && !std::exchange(told_of_dropped_, true))
    lines.push_back("a heartbeat that is not of this job was dropped; more of them are dropped silently");
  return lines;
}

std::unique_ptr<Heartbeats> Heartbeats::listen(const std::vector<std::string>& machines,
                                               const std::string& status_folder) {
  for (size_t i = 0; i < std::min(machines.size(), kMostMachinesTried); ++i) {
    auto address = own_address_towards(machines[i]);
    if (!address) continue;
    Descriptor socket = listen_at(*address);
    ControlPlane control{.host = host_name(),
                         .address = *address,
                         .port = endpoint_of(socket).port,
                         .key = ControlPlane::new_key()};
    control.write(status_folder);
    return std::unique_ptr<Heartbeats>(new Heartbeats(std::move(socket), control.key));
  }
  return nullptr;
}

HeardRanks& Heartbeats::heard(double now) {
  std::array<char, 1 << 16> datagram;
  for (int i = 0; i < kMostAtOnce; ++i) {
    ssize_t size = ::recv(socket_.get(), datagram.data(), datagram.size(), MSG_DONTWAIT);
    if (size < 0) break;
    heard_.take({datagram.data(), static_cast<size_t>(size)}, now);
  }
  return heard_;
}

}  // namespace echelon
