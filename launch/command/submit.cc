#include "launch/command/submit.h"

#include <algorithm>
#include <iostream>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "cluster/base/text.h"
#include "launch/command/child.h"
#include "launch/command/job.h"
#include "launch/command/machine.h"
#include "launch/options/arguments.h"
#include "runtime/recipe/check.h"
#include "runtime/store/run_folder.h"

namespace echelon {

namespace {

constexpr double kPatienceSeconds = 60;  // for sbatch
constexpr size_t kLongestName = 64;

/// Letters, digits, `_`, `.` and `-`: a line break or a slash in a job's name would mean something to Slurm.
std::string job_name(const std::string& recipe_name) {
  std::string name = recipe_name.substr(0, kLongestName);
  for (char& c : name) {
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.';
    if (!plain) c = '-';
  }
  return name.empty() ? "echelon" : name;
}

/// A path that no program takes for an option.
std::string no_option(const std::string& path) { return path.starts_with('-') ? "./" + path : path; }

/// A path in which sbatch sees no `%j` but ours.
std::string without_patterns(std::string path) {
  for (size_t at = 0; (at = path.find('%', at)) != std::string::npos; at += 2) path.insert(at, 1, '%');
  return path;
}

/// `echelon train` with every flag that was given, inside an allocation.
std::vector<std::string> train_command(const CommandLine& line, const StartArguments& start, const std::string& out,
                                       const Installation& installation) {
  std::vector<std::string> command = {join_path(installation.bin, "echelon")};
  std::vector<std::string> arguments = rank_arguments_of(line);
  std::erase_if(arguments, [](const std::string& word) { return word.starts_with("--out="); });
  std::vector<std::string> ours = {"--out=" + out, "--launcher=srun", fmt::format("--ranks={}", start.ranks),
                                   fmt::format("--max_restarts={}", start.max_restarts)};
  arguments.insert(std::find(arguments.begin(), arguments.end(), "--"), ours.begin(), ours.end());
  command.insert(command.end(), arguments.begin(), arguments.end());
  return command;
}

std::vector<std::string> sbatch_command(const SubmitArguments& asked, const std::string& name, int ranks,
                                        const std::string& out) {
  std::string program = find_program("sbatch");
  if (program.empty()) throw Error::recipe("--submit", "sbatch is not on PATH").remedy("install Slurm's client");
  std::vector<std::string> command = {program,
                                      "--parsable",
                                      "--requeue",
                                      "--open-mode=append",
                                      "--job-name=" + name,
                                      fmt::format("--ntasks={}", ranks),
                                      "--output=" + join_path(without_patterns(out), "log/slurm-%j.out"),
                                      fmt::format("--signal=USR1@{}", asked.seconds_to_save)};
  if (asked.nodes > 0) command.push_back(fmt::format("--nodes={}", asked.nodes));
  if (!asked.time.empty()) command.push_back("--time=" + asked.time);
  if (!asked.partition.empty()) command.push_back("--partition=" + asked.partition);
  command.push_back(join_path(out, "submit.sh"));
  return command;
}

}  // namespace

std::string quoted_for_shell(const std::string& text) {
  std::string quoted(1, '\'');
  for (char c : text) c == '\'' ? quoted.append("'\\''") : quoted.append(1, c);
  quoted += '\'';
  return quoted;
}

std::string batch_script(const std::vector<std::string>& command) {
  std::string words;
  for (const std::string& word : command) {
    if (!words.empty()) words += ' ';
    words += quoted_for_shell(word);
  }
  return "#!/bin/sh\n# Written by `echelon train --submit`. Each start goes on from the last checkpoint.\n" + words +
         "\nstatus=$?\n# Stopped on request, after a checkpoint: there is more to do.\n"
         "[ \"$status\" -ne 75 ] || scontrol requeue \"$SLURM_JOB_ID\"\nexit \"$status\"\n";
}

void submit(const CommandLine& line, const Installation& installation) {
  check_arguments(line);
  StartArguments start = start_arguments();
  if (start.ranks < 1) throw Error::usage("--submit", "needs --ranks: nothing can be counted here");
  if (start.launcher == "mpirun" || !start.hosts.empty() || !start.hostfile.empty())
    throw Error::usage("--submit", "the job is started by srun on the nodes that Slurm gives it");
  TrainArguments train = train_arguments(line);
  LoadedRecipe loaded = read_recipe(train.recipe, train.overrides, installation.recipes);
  check_recipe(loaded.recipe, start.ranks, loaded.places);
  check_profile(train, loaded.recipe);
  std::string out = no_option(train.out.empty() ? default_run_folder(loaded.recipe.name()) : train.out);
  if (!train.trust_folder && exists(out)) refuse_unsafe_folder(out);
  std::vector<std::string> command =
      sbatch_command(submit_arguments(), job_name(loaded.recipe.name()), start.ranks, out);
  make_folders(join_path(out, "log"));
  write_file_atomically(join_path(out, "submit.sh"), batch_script(train_command(line, start, out, installation)));
  std::string answer = output_of(command, kPatienceSeconds);
  std::string number = answer.substr(0, answer.find_first_of(";\n"));
  if (number.empty() || number.find_first_not_of("0123456789") != std::string::npos)
    throw Error::recipe("sbatch", "no job was made").got(printable(answer.substr(0, answer.find('\n'))));
  std::cout << fmt::format(
      "job {} in {}\n  squeue --job={}     how it stands\n  scancel {}          stops it for good\n", number, out,
      number, number);
}

}  // namespace echelon
