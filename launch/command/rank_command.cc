#include "launch/command/rank_command.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <iostream>

#include <sys/stat.h>
#include <unistd.h>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "launch/command/supervisor.h"
#include "launch/options/resume.h"

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

// The highest committed step of a run folder; -1: none.
int64_t newest_checkpoint(const std::string& run_folder) {
  int64_t newest = -1;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(join_path(run_folder, "checkpoints"), ignored)) {
    std::string name = entry.path().filename();
    int64_t step = -1;
    if (!name.starts_with("step-")) continue;
    auto [stop, failure] = std::from_chars(name.data() + 5, name.data() + name.size(), step);
    if (failure == std::errc() && stop == name.data() + name.size()) newest = std::max(newest, step);
  }
  return newest;
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
    check_run_folder(out_, loaded_.recipe, train.resume);
    log_folder_ = join_path(out_, "log");
    // Closed to others from the start; whether the folder is ours to write is for the ranks to check when they hold it.
    mode_t mask = umask(027);
    make_folders(log_folder_);
    umask(mask);
    std::cerr << fmt::format("echelon: {} rank{} in {}\n", placement_.ranks, placement_.ranks == 1 ? "" : "s", out_);
  }

  int watch_ranks(bool train) {
    StatusFolder status(train ? log_folder_ : fs::temp_directory_path().string());
    std::vector<std::string> more;
    if (train) more.push_back("--out=" + out_);
    for (int restarts = 0;; ++restarts) {
      int64_t before = newest_checkpoint(out_);
      Verdict verdict = watch_once(status, more);
      bool restart = train && verdict.exit_code == static_cast<int>(Error::Kind::comm) &&
                     restarts < start_.max_restarts && newest_checkpoint(out_) > before && !was_asked_to_stop();
      if (!restart) return finish(verdict);
      std::cerr << fmt::format("echelon: {}\nechelon: restart {} of {} from step {}\n", verdict.sentence, restarts + 1,
                               start_.max_restarts, newest_checkpoint(out_));
      if (restarts == 0) more.push_back("--resume=auto");
      status.clear();
    }
  }

  Verdict watch_once(const StatusFolder& status, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = rank_arguments_of(line_);
    std::vector<std::string> ours = {"--status_folder=" + status.path(),
                                     live_terminal() ? "--progress=live" : "--progress=plain"};
    ours.insert(ours.end(), more.begin(), more.end());
    // Before `--`; what stands later wins.
    arguments.insert(std::find(arguments.begin(), arguments.end(), "--"), ours.begin(), ours.end());
    return watch({.child = child_of(placement_, machine_, installation_.rank_program, arguments),
                  .starter = placement_.starter,
                  .status_folder = status.path(),
                  .log_folder = log_folder_,
                  .saves_on_request = line_.command->name == "train" && !loaded_.file.empty()});
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
};

}  // namespace

int run_rank_command(const CommandLine& line, const Installation& installation) {
  return RankCommand(line, installation).run();
}

}  // namespace echelon
