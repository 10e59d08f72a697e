// Two to four runs want one folder at once; some die in it, one is frozen and woken.
#include <csignal>
#include <random>
#include <set>

#include <sys/stat.h>
#include <unistd.h>

#include "runtime/store/run_folder.h"
#include "tests/store/faults/trial.h"

namespace echelon {
namespace {

/// What the runs share beside the folder: a line to start from, and a count of the steps that were committed.
class Course {
 public:
  explicit Course(const std::string& folder) : run(join_path(folder, "run")), alone_(join_path(folder, "alone")) {
    demand(::pipe(gate_) == 0 && ::pipe(commits_) == 0, "no pipe");
  }
  ~Course() {
    for (int end : {gate_[0], commits_[0]}) ::close(end);
  }
  void wait_at_gate() const {
    let_go_of_gate();
    char none;
    (void)!::read(gate_[0], &none, 1);
  }
  /// It opens when the last process has let go.
  void let_go_of_gate() const { ::close(gate_[1]); }
  /// Two owners at once would both create it.
  void enter_alone() const { demand(::mkdir(alone_.c_str(), 0700) == 0, "two runs own the folder at once"); }
  void leave() const { ::rmdir(alone_.c_str()); }
  void report(int64_t step) const { (void)!::write(commits_[1], &step, sizeof step); }
  std::multiset<int64_t> reported() const {
    ::close(commits_[1]);
    std::multiset<int64_t> steps;
    for (int64_t step; ::read(commits_[0], &step, sizeof step) == sizeof step;) steps.insert(step);
    return steps;
  }

  const std::string run;

 private:
  std::string alone_;
  int gate_[2], commits_[2];
};

/// What an owner does: goes on from the newest step, and saves one more.
void own(const Course& course, const RunFolder& held, bool dies) {
  course.enter_alone();
  CheckpointStore store(course.run);
  store.act_under(held.epoch());
  store.clean();
  std::optional<Checkpoint> newest = store.recover();
  int64_t step = newest ? newest->step + 1 : 1;
  save_or_abandon(store, step);
  course.report(step);
  course.leave();
  if (dies) ::raise(SIGKILL);
}

/// Holds the folder from "another machine", and is frozen before one of the calls of a save.
void freeze_in_a_save(const Course& course, int64_t call) {
  HoldOptions options{.lease_seconds = 0.02};
  options.self.host = "elsewhere";
  options.self.boot_id = "another kernel";
  RunFolder held = RunFolder::hold(course.run, options);
  CheckpointStore store(course.run);
  store.act_under(held.epoch());
  std::string staging = store.begin(1, 2000);
  run_with_strike(
      call, [] { ::raise(SIGSTOP); }, [&] { commit_step(store, staging, 1, 1000); });
  course.report(1);
}

void demand_one_history(const Course& course, const std::multiset<int64_t>& reported) {
  CheckpointStore store(course.run);
  demand_whole_steps(store, {reported.begin(), reported.end()});
  std::vector<int64_t> steps = store.steps();
  demand(std::multiset<int64_t>(steps.begin(), steps.end()) == reported,
         fmt::format("steps {} of {} commits", steps, reported));
  int64_t epoch = 0;
  for (int64_t step : steps) {
    int64_t next = open_checkpoint(store.folder(step)).manifest.epoch;
    demand(next > epoch, fmt::format("step {} has epoch {} after {}", step, next, epoch));
    epoch = next;
  }
}

std::vector<Child> line_up(const Course& course, int64_t runs, std::mt19937& random) {
  std::vector<Child> children;
  for (int64_t i = 0; i < runs; ++i) {
    bool dies = random() % 3 == 0;
    children.emplace_back([&course, dies] {
      course.wait_at_gate();
      own(course, RunFolder::hold(course.run, {.lease_seconds = 0.02}), dies);
    });
  }
  return children;
}

constexpr int64_t first_calls_of_a_save = 20;  // fewer than a commit makes: it is frozen in each of these

void race(int64_t trial) {
  std::mt19937 random(trial);
  TemporaryFolder folder(memory_folder());
  Course course(folder.path());
  bool has_frozen = random() % 2 == 0;
  Child frozen([&] {
    course.let_go_of_gate();
    if (has_frozen) freeze_in_a_save(course, random() % first_calls_of_a_save);
  });
  if (has_frozen) demand(frozen.wait_until_stopped(), "was not frozen");
  std::vector<Child> children = line_up(course, has_frozen ? 1 + random() % 3 : 2 + random() % 3, random);
  course.let_go_of_gate();
  int64_t owners = 0;
  for (Child& child : children) {
    int code = child.wait();
    demand(code == 0 || code == -SIGKILL || code == 5, fmt::format("a run ended with {}", code));
    owners += code != 5;
  }
  frozen.signal(SIGCONT);
  demand(frozen.wait() == (has_frozen ? 5 : 0), "the frozen run did not end with exit code 5");
  std::multiset<int64_t> reported = course.reported();
  demand(owners > 0 && std::ssize(reported) == owners, fmt::format("{} owners, commits of {}", owners, reported));
  demand_one_history(course, reported);
}

}  // namespace

FaultRow races() { return {.run = race}; }

}  // namespace echelon
