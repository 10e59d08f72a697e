// EIO, ENOSPC and short transfers at every call of whatever touches a run's folder.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "runtime/store/run_folder.h"
#include "tests/store/faults/file_calls.h"
#include "tests/store/faults/trial.h"

namespace echelon {
namespace {

struct Scene {
  std::string name;
  std::function<void(const std::string& run)> action;  ///< runs while a call fails
  std::vector<int64_t> kept;                           ///< steps that no failure may cost
  int64_t added = 0;                                   ///< step that is there when the action succeeds
};

void load_newest(const CheckpointStore& store) {
  std::optional<Checkpoint> found = store.recover();
  demand(found.has_value(), "a run with steps looks like a new one");
  demand(found->step == 3 || !found->passed_over.empty(), "the newest step was passed over without a word");
  demand_content(*found);
  demand(find_damage(*found).empty(), "a whole step was called damaged");
}

/// A run whose folder another has taken over commits nothing, whatever fails while it looks.
void save_outdated(CheckpointStore store) {
  store.act_under(1);
  save_or_abandon(store, 4);
}

const std::vector<Scene>& scenes() {
  static const std::vector<Scene> all = {
      {"save", [](auto& run) { save_or_abandon(CheckpointStore(run), 4); }, {1, 2, 3}, 4},
      {"retire", [](auto& run) { CheckpointStore(run).retire(2); }, {2, 3}},
      {"load", [](auto& run) { load_newest(CheckpointStore(run)); }, {1, 2, 3}},
      {"set aside", [](auto& run) { CheckpointStore(run).set_aside(3); }, {1, 2}},
      {"clean", [](auto& run) { CheckpointStore(run).clean(); }, {1, 2, 3}},
      {"hold", [](auto& run) { RunFolder::hold(run).check_held(); }, {1, 2, 3}},
      {"replaced", [](auto& run) { save_outdated(CheckpointStore(run)); }, {1, 2, 3}},
  };
  return all;
}

/// A run with three steps, something in flight, something half removed, and an owner that is gone.
void set_scene(const std::string& run) {
  CheckpointStore store(run);
  make_folders(join_path(run, "lease"));
  demand(make_claim(run, 1, {.host = "gone", .boot_id = "", .pid = 1}), "no claim");
  RunOwner released = RunOwner::this_process();
  demand(make_claim(run, 2, released), "no second claim");
  release_claim(run, 2, released);
  for (int64_t step : {1, 2, 3}) save_step(store, step);
  write_rank_file(store.begin(9, 1000), 0, 'x');
  make_folders(join_path(run, "trash/step-00000000.half"));
}

/// Made once: the same for every trial.
const std::string& prepared_run() {
  static TemporaryFolder folder(memory_folder());
  static std::string run = folder.at("run");
  if (!exists(run)) set_scene(run);
  return run;
}

struct Fault {
  int reply;   ///< errno, or cut_short
  bool lasts;  ///< from that call on
};
constexpr Fault faults[] = {{EIO, false},   {EIO, true},        {ENOSPC, false},
                            {ENOSPC, true}, {cut_short, false}, {cut_short, true}};

struct Point {
  const Scene* scene;
  Fault fault;
  int64_t call;
  std::string call_name;

  std::string describe() const {
    std::string what = fault.reply == cut_short ? "cut short" : std::strerror(fault.reply);
    return fmt::format("{}, call {} ({}) {}{}", scene->name, call, call_name, what, fault.lasts ? " from then on" : "");
  }
};

void set_up(const std::string& run) {
  std::filesystem::copy(prepared_run(), run, std::filesystem::copy_options::recursive);
}

std::vector<FileCall> calls_of(const Scene& scene) {
  TemporaryFolder folder(memory_folder());
  set_up(folder.at("run"));
  std::vector<FileCall> calls;
  WatchedCalls watched([&](const FileCall& call) {
    calls.push_back(call);
    return 0;
  });
  try {
    scene.action(folder.at("run"));
  } catch (const Error&) {
    demand(scene.name == "replaced", scene.name + " fails by itself");
  }
  return calls;
}

const std::vector<Point>& points() {
  static const std::vector<Point> all = [] {
    std::vector<Point> points;
    for (const Scene& scene : scenes()) {
      std::vector<FileCall> calls = calls_of(scene);
      for (size_t n = 0; n < calls.size(); ++n) {
        for (Fault fault : faults) {
          if (fault.reply == cut_short && !calls[n].transfers) continue;
          points.push_back({&scene, fault, static_cast<int64_t>(n), std::string(calls[n].name)});
        }
      }
    }
    return points;
  }();
  return all;
}

std::string path_of_open_file(int file) {
  std::error_code ignored;
  return std::filesystem::read_symlink(fmt::format("/proc/self/fd/{}", file), ignored).string();
}

/// Answers with the fault, and remembers files whose fsync failed.
class Injector {
 public:
  explicit Injector(const Point& point) : point_(point) {}

  int answer(const FileCall& call) {
    bool is_struck = point_.fault.lasts ? seen_ >= point_.call : seen_ == point_.call;
    ++seen_;
    if (call.name == "fsync") watch_fsync(call, is_struck);
    bool is_possible = point_.fault.reply != cut_short || call.transfers;
    return is_struck && is_possible ? point_.fault.reply : 0;
  }
  const std::string& synced_again() const { return synced_again_; }

 private:
  void watch_fsync(const FileCall& call, bool is_struck) {
    std::string path = path_of_open_file(call.file);
    if (lost_.contains(path) && !is_folder(path)) synced_again_ = path;
    if (is_struck && point_.fault.reply != cut_short) lost_.insert(path);
  }

  const Point& point_;
  int64_t seen_ = 0;
  std::set<std::string> lost_;
  std::string synced_again_;
};

void demand_sentence(const Point& point, const Error& error) {
  std::string sentence = error.what();
  demand(error.kind() == Error::Kind::storage, "not a storage error: " + sentence);
  if (point.scene->name == "replaced" && sentence.find("taken over by") != std::string::npos) return;
  std::string reason = std::string(std::strerror(point.fault.reply)).substr(1);  // its first letter may be small
  demand(sentence.find(reason) != std::string::npos, "does not say why: " + sentence);
}

void demand_recovery(const Scene& scene, const std::string& run, bool has_succeeded) {
  CheckpointStore store(run);
  demand_whole_steps(store, scene.kept);
  if (has_succeeded && scene.added > 0) demand_whole_steps(store, {scene.added});
  if (scene.name == "replaced") demand(!exists(store.folder(4)), "committed by a run that was replaced");
  bool has_cleaned = scene.name == "clean" && has_succeeded;
  demand(!has_cleaned || list_folder(join_path(run, "inflight")).empty(), "left in flight without a word");
  int64_t newest = start_again(store);
  demand(newest >= scene.kept.back(), fmt::format("the next start goes on from {}", newest));
}

void act(const Point& point, const std::string& run) {
  Injector injector(point);
  try {
    WatchedCalls watched([&](const FileCall& call) { return injector.answer(call); });
    point.scene->action(run);
  } catch (const Error& error) {
    demand_sentence(point, error);
    demand(injector.synced_again().empty(), "synced again after a failure: " + injector.synced_again());
    throw;
  }
}

/// In a process of its own: a run that fails is gone.
void run_point(const Point& point) {
  TemporaryFolder folder(memory_folder());
  set_up(folder.at("run"));
  int code = Child([&] { act(point, folder.at("run")); }).wait();
  demand(code == 0 || code == static_cast<int>(Error::Kind::storage), fmt::format("ended with {}", code));
  demand_recovery(*point.scene, folder.at("run"), code == 0);
  RunFolder::hold(folder.at("run")).check_held();
}

void run_trial(int64_t trial) {
  const Point& point = points().at(trial);
  try {
    run_point(point);
  } catch (const std::exception& error) {
    throw BrokenPromise(fmt::format("{}: {}", point.describe(), error.what()));
  }
}

}  // namespace

FaultRow failing_calls() {
  return {.last = [] { return std::ssize(points()); }, .run = run_trial};
}

}  // namespace echelon
