#include "launch/command/drill.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "cluster/base/error.h"
#include "cluster/base/files.h"
#include "cluster/base/json.h"
#include "launch/command/faults.h"
#include "launch/command/rank_command.h"

namespace echelon {

namespace {

constexpr int64_t kMostFileBytes = int64_t{1} << 40;

std::vector<std::string> train_command(const DrillArguments& arguments, const Installation& installation) {
  std::vector<std::string> command = {join_path(installation.bin, "echelon"), "train", arguments.recipe};
  command.insert(command.end(), arguments.overrides.begin(), arguments.overrides.end());
  if (arguments.ranks > 0) command.push_back(fmt::format("--ranks={}", arguments.ranks));
  return command;
}

/// The lines of metrics.jsonl without what differs between two equal runs: times and memory.
std::vector<Json> bits_of_metrics(const std::string& run) {
  std::ifstream file(join_path(run, "metrics.jsonl"));
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) {
    Json json = parse_json(line, "metrics.jsonl");
    for (const char* key : {"step_seconds", "seconds", "checkpoint_seconds", "evaluate_seconds", "tokens_per_second",
                            "memory_peak_bytes", "mfu"})
      json.erase(key);
    lines.push_back(std::move(json));
  }
  return lines;
}

/// The first file that one of two folders holds otherwise than the other; empty: none. Folders that both lack are
/// equal.
std::string first_difference(const std::string& one, const std::string& other) {
  if (!exists(one) && !exists(other)) return "";
  std::vector<std::string> names = list_folder(one);
  if (names != list_folder(other)) return other;
  for (const std::string& name : names) {
    std::string path = join_path(other, name);
    auto bytes = [](const std::string& of) { return read_file(of, Error::Kind::storage, kMostFileBytes); };
    if (bytes(join_path(one, name)) != bytes(path)) return path;
  }
  return "";
}

/// The place where two runs differ; empty: nowhere.
std::string difference(const std::string& one, const std::string& other) {
  if (bits_of_metrics(one) != bits_of_metrics(other)) return join_path(other, "metrics.jsonl");
  std::string found = first_difference(join_path(one, "export"), join_path(other, "export"));
  return found.empty() ? first_difference(join_path(one, "adapter"), join_path(other, "adapter")) : found;
}

std::string seconds_text(std::optional<double> seconds, const char* otherwise) {
  return seconds ? fmt::format("{:.2f} s after it", *seconds) : otherwise;
}

void report(const Fault& fault, const DrillJob& job, int64_t steps) {
  int64_t repeated = job.resumed_from() ? std::max<int64_t>(0, job.step_at_fault() - *job.resumed_from()) : 0;
  std::cout << fmt::format("{}: {}\n", fault.name, fault.what);
  std::cout << fmt::format("  fault      behind step {} of {}\n", job.step_at_fault(), steps);
  std::cout << fmt::format("  noticed    {}\n", seconds_text(job.noticed_after(), "nothing was said"));
  if (!job.notice().empty()) std::cout << fmt::format("             {}\n", job.notice());
  std::cout << fmt::format("  new step   {}, {} repeated\n", seconds_text(job.new_step_after(), "none"), repeated);
}

}  // namespace

std::string list_faults() {
  std::string text = "Faults, and what is promised beside bits equal to those of an unbroken run:\n";
  for (const Fault& fault : faults())
    text += fmt::format("  {:<9} {}\n            {}\n", fault.name, fault.what, fault.promise);
  return text;
}

void drill(const DrillArguments& arguments, const Installation& installation) {
  const Fault& fault = find_fault(arguments.fault);
  std::vector<std::string> command = train_command(arguments, installation);
  DrillJob whole(command, join_path(arguments.out, "unbroken")), broken(command, join_path(arguments.out, "broken"));
  if (exists(whole.folder()) || exists(broken.folder()))
    throw Error::usage("--out", fmt::format("{} holds a drill already", arguments.out));
  std::cout << "the run without a fault: " << whole.folder() << std::endl;
  whole.start();
  if (int code = whole.finish(); code != 0) throw Failed{code, "the run without a fault: " + whole.last_words()};
  int64_t steps = whole.last_step();
  std::mt19937_64 random(static_cast<uint64_t>(arguments.seed));
  int64_t step = steps / 4 + static_cast<int64_t>(random() % static_cast<uint64_t>(std::max<int64_t>(1, steps / 2)));
  std::cout << "the run with the fault:  " << broken.folder() << std::endl;
  broken.start();
  broken.wait_for_step(std::max<int64_t>(1, step));
  int code = fault.inject(broken, random);
  report(fault, broken, steps);
  if (code != 0) throw Failed{code, "the run did not go on: " + broken.last_words()};
  if (std::string place = difference(whole.folder(), broken.folder()); !place.empty())
    throw Error::internal(place, "differs from the unbroken run's");
  std::cout << "  bits       equal: metrics and exported weights\n";
}

}  // namespace echelon
