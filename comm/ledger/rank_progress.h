// What a rank is at, in a file that others read and that survives it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace echelon {

enum class Phase : int32_t { start, input, compute, update, evaluate, save, finish };

/// "compute".
std::string_view name_of(Phase phase);

struct ProgressState {
  Phase phase = Phase::start;
  int64_t step = 0;   ///< 0: before the first
  int64_t beats = 0;  ///< grows whenever the rank has come on
  int64_t first_step = 0;  ///< since its start; 0: before it

  bool operator==(const ProgressState&) const = default;
};

/// Written by one rank alone, from its own thread of work: what stands still has stopped, whatever other threads do.
/// Some 5 ns.
class RankProgress {
 public:
  /// Makes or overwrites `path` (mode 0640); empty: in memory. Errors: Error::storage.
  explicit RankProgress(const std::string& path = "");
  ~RankProgress();
  RankProgress(const RankProgress&) = delete;
  RankProgress& operator=(const RankProgress&) = delete;

  void enter(Phase phase, int64_t step);
  /// It has come on within its phase.
  void beat();

 private:
  struct Page;
  Page* page_ = nullptr;
};

/// Nothing when there is no such file, or it is none of ours.
std::optional<ProgressState> read_progress(const std::string& path);

}  // namespace echelon
