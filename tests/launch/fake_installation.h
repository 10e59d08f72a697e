// The echelon program beside a stand-in for its rank program.
#pragma once

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "launch/command/child.h"

namespace echelon {

struct Outcome {
  Ending ending;
  std::string output;  ///< stdout and stderr
  double seconds = 0;

  std::string last_line() const {
    size_t end = output.find_last_not_of('\n');
    size_t start = output.rfind('\n', end);
    return output.substr(start == std::string::npos ? 0 : start + 1, end - (start == std::string::npos ? -1 : start));
  }
};

inline bool wait_for_file(const std::string& path) {
  for (int i = 0; i < 200 && !std::filesystem::exists(path); ++i) usleep(50'000);
  return std::filesystem::exists(path);
}

inline bool runs(pid_t pid) { return kill(pid, 0) == 0; }

class FakeInstallation {
 public:
  FakeInstallation() {
    namespace fs = std::filesystem;
    std::string pattern = (fs::temp_directory_path() / "echelon-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
    fs::create_directories(path_ + "/bin");
    fs::create_directories(path_ + "/share");
    std::string build = std::getenv("ECHELON_BUILD"), source = std::getenv("ECHELON_SOURCE");
    fs::copy_file(build + "/bin/echelon", path_ + "/bin/echelon");
    fs::copy_file(source + "/tests/launch/fake_rank.sh", path_ + "/bin/echelon-rank");
    fs::create_directory_symlink(build + "/share/echelon", path_ + "/share/echelon");
  }
  ~FakeInstallation() { std::filesystem::remove_all(path_); }

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

  Child start(std::vector<std::string> arguments, const std::string& behaviour = "fine") const {
    arguments.insert(arguments.begin(), path_ + "/bin/echelon");
    return Child::start({.arguments = arguments,
                         .environment = {{"FAKE", behaviour}, {"FAKE_FILE", file("said")}, {"TERM", "dumb"}},
                         .capture_stderr = true,
                         .capture_stdout = true});
  }
  static Outcome finish(Child& child) {
    auto start = std::chrono::steady_clock::now();
    Outcome outcome;
    while (!child.output_closed()) outcome.output += child.read_output(50);
    while (!child.ended()) usleep(10'000);
    outcome.ending = *child.ended();
    outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return outcome;
  }
  Outcome run(const std::vector<std::string>& arguments, const std::string& behaviour = "fine") const {
    Child child = start(arguments, behaviour);
    return finish(child);
  }
  /// `train` of a small recipe into the folder `run`.
  std::vector<std::string> train(int ranks, int most_restarts = 3) const {
    return {"train", "base/tiny_decoder_clm", "--out=" + file("run"), "--launcher=mpirun",
            "--ranks=" + std::to_string(ranks), "--max_restarts=" + std::to_string(most_restarts)};
  }

 private:
  std::string path_;
};

}  // namespace echelon
