#include "runtime/profile.h"

#include <array>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string_view>

#include <fmt/format.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "cluster/base/files.h"
#include "cluster/base/json.h"
#include "comm/agree.h"

namespace echelon {

namespace {

namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

/// Spans of a track nest. Those of Units overlap with autograd's operators, at both ends of their backward.
struct Track {
  std::string_view category, title;
};
constexpr std::array kTracks{Track{"phase", "phases"}, Track{"unit", "units"}, Track{"collective", "collectives"},
                             Track{"kernel", "operators and kernels"}};
constexpr std::string_view kOperator = "operator";  // in the track of the kernels
constexpr size_t kTrackOfOperators = kTracks.size() - 1;

int64_t wall_clock_nanoseconds() {
  auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

double microseconds(int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1000; }

/// Of the calling thread, and of those that autograd hands its work to.
class Recording {
 public:
  Recording() {
    setenv("KINETO_LOG_LEVEL", "99", /*replace=*/0);  // it takes a machine without GPUs for an error
    profiler::prepareProfiler(config_, kActivities);
    profiler::enableProfiler(config_, kActivities);
  }
  ~Recording() {
    if (!ended_) profiler::disableProfiler();
  }
  std::unique_ptr<profiler::ProfilerResult> end() {
    ended_ = true;
    return profiler::disableProfiler();
  }

 private:
  inline static const std::set<ActivityType> kActivities{ActivityType::CPU};
  const ProfilerConfig config_{ProfilerState::KINETO};
  bool ended_ = false;
};

Json event_of(const profiler::KinetoEvent& event, int rank, int64_t start) {
  std::string name = event.name();
  std::string_view category = kOperator;
  size_t track = kTrackOfOperators;
  for (size_t i = 0; i < kTracks.size(); ++i) {
    if (!name.starts_with(fmt::format("{}: ", kTracks[i].category))) continue;
    category = kTracks[i].category;
    track = i;
    name.erase(0, category.size() + 2);
  }
  return {{"ph", "X"},
          {"cat", category},
          {"name", name},
          {"pid", rank},
          {"tid", track},
          {"ts", microseconds(static_cast<int64_t>(event.startNs()) - start)},
          {"dur", microseconds(static_cast<int64_t>(event.durationNs()))}};
}

Json title_of(const char* what, int rank, size_t track, const std::string& title) {
  return {{"ph", "M"}, {"name", what}, {"pid", rank}, {"tid", track}, {"args", {{"name", title}}}};
}

Json trace_of(const profiler::ProfilerResult& result, const Group& ranks, int64_t start) {
  Json events = Json::array({title_of("process_name", ranks.rank(), 0, fmt::format("rank {}", ranks.rank()))});
  for (size_t i = 0; i < kTracks.size(); ++i)
    events.push_back(title_of("thread_name", ranks.rank(), i, std::string(kTracks[i].title)));
  for (const profiler::KinetoEvent& event : result.events()) events.push_back(event_of(event, ranks.rank(), start));
  return {{"traceEvents", events},
          {"displayTimeUnit", "ms"},
          {"distributedInfo", {{"rank", ranks.rank()}, {"world_size", ranks.size()}}}};
}

}  // namespace

void record_profile(const Group& ranks, const std::string& path, const std::function<void()>& action) {
  int64_t start = agree_max(ranks, wall_clock_nanoseconds(), "start of the profile");
  Recording recording;
  action();
  write_file_atomically(path, dump_json(trace_of(*recording.end(), ranks, start)));
}

}  // namespace echelon
