#include "launch/command/verdict.h"

#include <algorithm>
#include <array>
#include <csignal>

#include "cluster/base/error.h"

namespace echelon {

namespace {

constexpr std::array kKinds = {Error::Kind::internal, Error::Kind::usage,   Error::Kind::recipe,
                               Error::Kind::input,    Error::Kind::storage, Error::Kind::comm,
                               Error::Kind::numerics, Error::Kind::memory,  Error::Kind::stopped};
constexpr int kComm = static_cast<int>(Error::Kind::comm);
constexpr int kStopped = static_cast<int>(Error::Kind::stopped);

bool is_kind(int exit_code) {
  return std::any_of(kKinds.begin(), kKinds.end(),
                     [&](Error::Kind kind) { return static_cast<int>(kind) == exit_code; });
}

// The earliest report whose exit code `fits`.
template <class Fits>
const RankReport* earliest(const std::vector<RankReport>& reports, Fits fits) {
  const RankReport* found = nullptr;
  for (const RankReport& report : reports) {
    if (!report.exit_code || !fits(*report.exit_code)) continue;
    if (!found || report.ended < found->ended) found = &report;
  }
  return found;
}

Verdict of_report(const RankReport& report) {
  std::string sentence = report.sentence;
  if (sentence.empty() && report.exit_code == kStopped) {
    sentence = Error(Error::Kind::stopped, "", "on request, after a durable checkpoint")
                   .remedy("the same command goes on")
                   .what();
  }
  if (sentence.empty())
    sentence = Error(Error::Kind(*report.exit_code), fmt::format("rank {}", report.rank), "gave no reason").what();
  return {*report.exit_code, sentence, report.rank, false};
}

std::string place_of(int rank, const std::string& host) {
  return host.empty() ? fmt::format("rank {}", rank) : fmt::format("rank {} on {}", rank, host);
}

Verdict of_signal(int rank, const std::string& host, int signal) {
  Error error = Error::comm(place_of(rank, host), fmt::format("killed by signal {} ({})", signal, signal_name(signal)));
  if (signal == SIGKILL) error.remedy("if nobody did that, the system was out of memory");
  return {kComm, error.what(), rank, true};
}

Verdict of_out_of_memory(int rank) {
  Error error = Error::memory(fmt::format("rank {}", rank), "killed by the system, which was out of memory");
  error.remedy("use more ranks, a higher sharding.zero or a smaller batch.micro");
  return {error.exit_code(), error.what(), rank, true};
}

Verdict of_hang(const Hang& hang) {
  std::string place = hang.rank < 0 ? "job" : place_of(hang.rank, hang.host);
  return {kComm, Error::comm(place, hang.what).what(), hang.rank, true};
}

Verdict of_lost_machine(const LostMachine& lost) {
  std::string what = fmt::format("lost, or the link to it; its ranks {} were last heard of {:.1f} s before the end",
                                 fmt::join(lost.ranks, ", "), lost.seconds);
  return {kComm, Error::comm("machine " + lost.host, what).what(), -1, false};
}

Verdict stopped_early(int signal) {
  return {128 + signal, fmt::format("stopped: {}: ended before a checkpoint was durable", signal_name(signal)), -1,
          false};
}

// A rank that a signal ended. One that was asked to stop before it could listen has ended by that.
Verdict of_dead_rank(const Evidence& seen, int rank, const std::string& host, int signal) {
  if (seen.stop_signal != 0) return stopped_early(seen.stop_signal);
  bool here = host.empty() || host == host_name();
  if (signal == SIGKILL && here && seen.out_of_memory) return of_out_of_memory(rank);
  return of_signal(rank, host, signal);
}

std::optional<Verdict> from_signals(const Evidence& seen) {
  if (seen.starter_says && seen.starter_says->signal != 0)
    return of_dead_rank(seen, seen.starter_says->rank, seen.starter_says->host, seen.starter_says->signal);
  if (seen.starter == Starter::direct && seen.ending.signal != 0 && !seen.killed)
    return of_dead_rank(seen, 0, "", seen.ending.signal);
  return {};
}

Verdict without_words(const Evidence& seen) {
  if (!seen.lost_ranks.empty()) {
    int rank = seen.lost_ranks.front();
    return {kComm, Error::comm(fmt::format("rank {}", rank), "died, and the other ranks did not end").what(), rank,
            true};
  }
  int rank = seen.starter_says ? seen.starter_says->rank : seen.starter == Starter::direct ? 0 : -1;
  int code =
      seen.starter_says && seen.starter_says->exit_code != 0 ? seen.starter_says->exit_code : seen.ending.exit_code;
  if (rank >= 0) {
    Error::Kind kind = is_kind(code) ? Error::Kind(code) : Error::Kind::comm;
    Error error(kind, fmt::format("rank {}", rank), fmt::format("ended with exit code {} and no reason", code));
    return {error.exit_code(), error.what(), rank, true};
  }
  const char* name = seen.starter == Starter::srun ? "srun" : "mpirun";
  std::string how = seen.ending.signal ? fmt::format("was killed by signal {} ({})", seen.ending.signal,
                                                     signal_name(seen.ending.signal))
                                       : fmt::format("failed with exit code {}", seen.ending.exit_code);
  return {kComm, Error::comm(name, how).remedy("its own words stand above").what(), -1, false};
}

}  // namespace

int exit_code_of_sentence(const std::string& sentence) {
  for (Error::Kind kind : kKinds) {
    if (sentence.starts_with(fmt::format("{}: ", name_of(kind)))) return static_cast<int>(kind);
  }
  return 0;
}

namespace {

Verdict cause_of(const Evidence& seen) {
  if (seen.ending.signal == 0 && seen.ending.exit_code == 0 && !seen.killed) return {};
  const auto& reports = seen.reports;
  if (const auto* own = earliest(reports, [](int code) { return code != 0 && code != kComm && code != kStopped; }))
    return of_report(*own);
  if (const auto* stopped = earliest(reports, [](int code) { return code == kStopped; })) return of_report(*stopped);
  if (seen.hang) return of_hang(*seen.hang);
  if (auto verdict = from_signals(seen)) return *verdict;
  if (seen.killed && seen.stop_signal != 0) return stopped_early(seen.stop_signal);
  if (seen.lost_machine && !seen.starter_says) return of_lost_machine(*seen.lost_machine);
  if (seen.lost_ranks.empty()) {
    if (const auto* comm = earliest(reports, [](int code) { return code == kComm; })) return of_report(*comm);
    if (int code = exit_code_of_sentence(seen.last_sentence)) return {code, seen.last_sentence, -1, false};
  }
  return without_words(seen);
}

// Ranks that disagree on a collective will do so again: that is a bug, not a failure of a machine.
bool is_bug(const std::string& sentence) { return sentence.find("ranks disagree") != std::string::npos; }

}  // namespace

Verdict judge(const Evidence& seen) {
  Verdict verdict = cause_of(seen);
  verdict.started = !seen.reports.empty();
  verdict.may_pass = verdict.exit_code == kComm && !is_bug(verdict.sentence);
  return verdict;
}

}  // namespace echelon
