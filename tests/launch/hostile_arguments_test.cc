// Whatever the fields of a launch hold, programs are started with exactly that, and nothing in it is ever run.
#include <algorithm>
#include <fstream>
#include <sstream>

#include <gflags/gflags.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "cluster/base/error.h"
#include "launch/command/child.h"
#include "launch/command/job.h"
#include "launch/command/machine.h"
#include "launch/command/submit.h"
#include "launch/options/arguments.h"
#include "runtime/recipe/overrides.h"
#include "tests/launch/fake_installation.h"
#include "tests/launch/hostile_words.h"
#include "tests/recipe/folder.h"

namespace echelon {
namespace {

std::string contents_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<std::string> split_at_zeros(const std::string& text) {
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    size_t end = text.find('\0', at);
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

/// A program that writes its arguments, each with a zero byte behind it, and stands in a folder of its own.
class Witness {
 public:
  explicit Witness(const std::string& name = "witness") {
    path_ = folder_.write(name, "#!/bin/sh\nfor word in \"$@\"; do printf '%s\\0' \"$word\"; done > " + folder_.path() +
                                    "/said\necho 1\n");
    ::chmod(path_.c_str(), 0755);
  }
  const std::string& path() const { return path_; }
  const std::string& folder() const { return folder_.path(); }
  std::vector<std::string> heard() const { return split_at_zeros(contents_of(folder_.path() + "/said")); }

 private:
  Folder folder_;
  std::string path_;
};

void run(const ChildOptions& options) {
  Child child = Child::start(options);
  while (!child.output_closed()) child.read_output(50);
  while (!child.ended()) usleep(1000);
}

/// `train` and flags of every kind with hostile values; gflags of one value each take the last.
std::vector<std::string> hostile_line(const std::vector<std::string>& words, size_t first) {
  size_t next = first;
  auto word = [&] { return words[next++ % words.size()]; };
  std::vector<std::string> line = {"train", "--out=" + word(), "--resume=x" + word(), "--adapter=" + word(), "--",
                                   word()};
  if (line.back().empty() || is_override(line.back())) line.back() = "name" + std::to_string(first);
  for (int i = 0; i < 60; ++i) line.push_back("name=" + word());
  return line;
}

class HostileArguments : public testing::TestWithParam<Starter> {
 protected:
  gflags::FlagSaver saved_;
};

TEST_P(HostileArguments, ReachTheRankAsTheyAre) {
  int trials = hostile_trials(2000);
  std::vector<std::string> words = hostile_words(trials);
  Witness witness;
  Placement placement{.starter = GetParam(), .ranks = 1, .threads = 1};
  if (GetParam() == Starter::mpirun) placement.program = find_program("mpirun");
  for (int first = 0; first < trials; first += 64) {
    std::vector<std::string> given = hostile_line(words, first);
    CommandLine line = parse_command_line(given);
    EXPECT_EQ(line.overrides, std::vector<std::string>(given.begin() + 6, given.end()));
    std::vector<std::string> meant = rank_arguments_of(line);
    run(child_of(placement, this_machine(), witness.path(), meant));
    ASSERT_EQ(witness.heard(), meant) << first;
    CommandLine again = parse_command_line(meant);
    EXPECT_EQ(again.overrides, line.overrides);
    EXPECT_EQ(train_arguments(again).out, train_arguments(line).out);
  }
  EXPECT_NE(::access("canary", F_OK), 0);
}

INSTANTIATE_TEST_SUITE_P(By, HostileArguments, testing::Values(Starter::direct, Starter::mpirun),
                         [](const auto& info) { return info.param == Starter::direct ? "hand" : "mpirun"; });

TEST(HostileSubmission, KeepsEveryValueInOneWord) {
  FakeInstallation echelon;
  Witness sbatch("sbatch");
  std::string path = std::string("PATH=") + sbatch.folder() + ":" + std::getenv("PATH");
  int trials = hostile_trials(60) / 10 + 20;
  std::vector<std::string> words = hostile_words(3 * trials, 7);
  for (int i = 0; i < trials; ++i) {
    std::string partition = "p" + words[3 * i], time = "t" + words[3 * i + 1], name = "run" + words[3 * i + 2];
    std::string out = echelon.file(name);
    std::vector<std::string> command = {
        "/usr/bin/env", path,        echelon.path() + "/bin/echelon", "train",          "base/tiny_decoder_clm",
        "--submit",     "--ranks=2", "--partition=" + partition,      "--time=" + time, "--out=" + out};
    std::string said = output_of(command, 20);
    std::vector<std::string> heard = sbatch.heard();
    ASSERT_FALSE(heard.empty()) << said;
    auto holds = [&](const std::string& word) { return std::count(heard.begin(), heard.end(), word) == 1; };
    EXPECT_TRUE(holds("--partition=" + partition) && holds("--time=" + time)) << said;
    EXPECT_EQ(heard.back(), out + "/submit.sh");
    std::string script = contents_of(heard.back());
    EXPECT_NE(script.find(quoted_for_shell("--out=" + out)), std::string::npos) << script;
    // sbatch looks for directives in front of the first command, whose words are all quoted.
    EXPECT_GT(script.find("\n#SBATCH"), script.find("\n'"));
    Child check = Child::start({.arguments = {"/bin/sh", "-n", heard.back()}});
    while (!check.ended()) usleep(1000);
    EXPECT_EQ(check.ended()->exit_code, 0) << script;
  }
  EXPECT_NE(::access("canary", F_OK), 0);
}

TEST(HostileSubmission, TakesNoPathForAnOption) {
  FakeInstallation echelon;
  Witness sbatch("sbatch");
  std::string path = std::string("PATH=") + sbatch.folder() + ":" + std::getenv("PATH");
  output_of({"/usr/bin/env", "-C", echelon.path(), path, echelon.path() + "/bin/echelon", "train",
             "base/tiny_decoder_clm", "--submit", "--ranks=2", "--out=-rf"},
            20);
  ASSERT_FALSE(sbatch.heard().empty());
  EXPECT_EQ(sbatch.heard().back(), "./-rf/submit.sh");
}

}  // namespace
}  // namespace echelon
