#include "launch/command/rank_command.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <random>

#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "launch/command/restart.h"
#include "launch/command/supervisor.h"
#include "launch/options/resume.h"
#include "runtime/store/checkpoint_store.h"
#include "runtime/store/run_folder.h"

namespace echelon {

namespace fs = std::filesystem;

namespace {

// A folder of this job alone, removed at its end.
class StatusFolder {
 public:
  explicit StatusFolder(const std::string& above) : path_(join_path(above, "echelon-XXXXXX")) {
    if (!mkdtemp(path_.data())) throw Error::storage(above, "no folder for the ranks' reports can be made in it");
  }
  ~StatusFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  void clear() const {
    for (const auto& entry : fs::directory_iterator(path_)) fs::remove(entry.path());
  }

 private:
  std::string path_;
};

// Committed steps of a run folder, rising.
std::vector<int64_t> checkpoints_of(const std::string& run_folder) {
  try {
    return CheckpointStore(run_folder).steps();
  } catch (const Error&) {
    return {};  // a store that cannot be read is for the ranks to complain about
  }
}

Attempt attempt_of(const Verdict& verdict, const std::vector<int64_t>& steps) {
  std::string sentence = verdict.sentence.substr(0, verdict.sentence.find(';'));
  return {.may_pass = verdict.may_pass && !was_asked_to_stop(),
          .started = verdict.started,
          .signature = sentence,
          .newest_step = steps.empty() ? -1 : steps.back(),
          .has_earlier = steps.size() > 1};
}

bool live_terminal() {
  const char* term = std::getenv("TERM");
  return isatty(STDERR_FILENO) && term && std::string(term) != "dumb";
}

class RankCommand {
 public:
  RankCommand(const CommandLine& line, const Installation& installation)
      : line_(line), installation_(installation), start_(start_arguments()), machine_(this_machine()) {}

  int run() {
    check_arguments(line_);
    if (!exists(installation_.rank_program))
      throw Error::recipe(installation_.rank_program, "not found").remedy("build it: ninja echelon-rank");
    placement_ = place_ranks(start_, machine_);
    bool train = line_.command->name == "train";
    if (line_.command->least_names == 1 && line_.command->takes_overrides) check_recipe_argument();
    if (train) check_profile(train_arguments(line_), loaded_.recipe);
    if (train && train_arguments(line_).dry_run) return dry_run();
    if (train) prepare_run_folder();
    listen_for_signals();
    return watch_ranks(train);
  }

 private:
  void check_recipe_argument() {
    loaded_ = read_recipe(line_.names.at(0), line_.overrides, installation_.recipes);
    check_recipe(loaded_.recipe, placement_.ranks, loaded_.places);
  }

  // What needs the model built (parameters, bytes) is asked of one rank program, which starts nothing else.
  int dry_run() {
    std::cout << recipe_text(loaded_.recipe) << std::flush;
    placement_.starter = Starter::direct;
    int ranks = placement_.ranks;
    placement_.ranks = 1;
    listen_for_signals();
    StatusFolder status(fs::temp_directory_path().string());
    finish(watch_once(status, {fmt::format("--ranks={}", ranks)}));
    return 0;
  }

  void prepare_run_folder() {
    TrainArguments train = train_arguments(line_);
    out_ = train.out.empty() ? default_run_folder(loaded_.recipe.name()) : train.out;
    if (!train.trust_folder && exists(out_)) refuse_unsafe_folder(out_);
    check_run_folder(out_, loaded_.recipe, train.resume);
    log_folder_ = join_path(out_, "log");
    // Closed to others from the start. The ranks look again when they hold the folder.
    mode_t mask = umask(027);
    make_folders(log_folder_);
    umask(mask);
    std::cerr << fmt::format("echelon: {} rank{} in {}\n", placement_.ranks, placement_.ranks == 1 ? "" : "s", out_);
  }

  int watch_ranks(bool train) {
    StatusFolder status(train ? log_folder_ : fs::temp_directory_path().string());
    if (!train) return finish(watch_once(status, {}));
    RestartPolicy policy(start_.max_restarts, std::random_device()());
    policy.begin(newest(checkpoints_of(out_)));
    std::vector<std::string> more = {"--out=" + out_};
    while (true) {
      Verdict verdict = watch_once(status, more);
      std::vector<int64_t> steps = checkpoints_of(out_);
      Decision decision = policy.after(attempt_of(verdict, steps));
      if (!decision.restart) return finish(with_reason(verdict, decision.reason));
      announce(verdict, decision, newest(steps));
      if (!sleep_unless_asked_to_stop(decision.wait_seconds)) return finish(stopped_while_waiting(newest(steps)));
      more = restart_arguments(decision, newest(steps));
      status.clear();
    }
  }

  static int64_t newest(const std::vector<int64_t>& steps) { return steps.empty() ? -1 : steps.back(); }

  static Verdict with_reason(Verdict verdict, const std::string& reason) {
    if (!reason.empty()) verdict.sentence += fmt::format(" ({})", reason);
    return verdict;
  }

  void announce(const Verdict& verdict, const Decision& decision, int64_t newest) {
    std::string from = newest < 0 ? "the start" : fmt::format("step {}", newest);
    if (decision.before_step > 0) from = fmt::format("the checkpoint before step {}", newest);
    std::cerr << fmt::format("echelon: {}\nechelon: restart {} from {} in {:.1f} s\n", verdict.sentence, ++restarts_,
                             from, decision.wait_seconds);
  }

  std::vector<std::string> restart_arguments(const Decision& decision, int64_t newest) const {
    std::vector<std::string> arguments = {"--out=" + out_};
    // Before its first checkpoint a run starts again from the one that it was told to start from.
    if (newest >= 0 || train_arguments(line_).resume == "never") arguments.push_back("--resume=auto");
    if (decision.before_step > 0) arguments.push_back(fmt::format("--before_step={}", decision.before_step));
    return arguments;
  }

  static bool sleep_unless_asked_to_stop(double seconds) {
    auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (std::chrono::steady_clock::now() < end && !was_asked_to_stop()) usleep(20'000);
    return !was_asked_to_stop();
  }

  static Verdict stopped_while_waiting(int64_t newest) {
    if (newest < 0) return {.exit_code = 143, .sentence = "stopped: ended before a checkpoint was durable"};
    Error error(Error::Kind::stopped, "", fmt::format("on request, between two attempts; step {} is durable", newest));
    error.remedy("the same command goes on");
    return {.exit_code = error.exit_code(), .sentence = error.what()};
  }

  Verdict watch_once(const StatusFolder& status, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = rank_arguments_of(line_);
    std::vector<std::string> ours = {"--status_folder=" + status.path(),
                                     live_terminal() ? "--progress=live" : "--progress=plain"};
    ours.insert(ours.end(), more.begin(), more.end());
    // Before `--`; what stands later wins.
    arguments.insert(std::find(arguments.begin(), arguments.end(), "--"), ours.begin(), ours.end());
    bool trains = line_.command->name == "train" && !loaded_.file.empty();
    return watch({.child = child_of(placement_, machine_, installation_.rank_program, arguments),
                  .starter = placement_.starter,
                  .machines = machines_of(placement_),
                  .status_folder = status.path(),
                  .log_folder = log_folder_,
                  .saves_on_request = trains,
                  .reports_progress = trains});
  }

  static int finish(const Verdict& verdict) {
    if (verdict.exit_code != 0) throw Failed{verdict.exit_code, verdict.sentence};
    return 0;
  }

  const CommandLine& line_;
  const Installation& installation_;
  StartArguments start_;
  Machine machine_;
  Placement placement_;
  LoadedRecipe loaded_;
  std::string out_, log_folder_;
  int restarts_ = 0;
};

}  // namespace

int run_rank_command(const CommandLine& line, const Installation& installation) {
  return RankCommand(line, installation).run();
}

}  // namespace echelon
