// Runs trials of one row, each in a process of its own, so that a crash is a failure with a number.
#include <algorithm>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include <unistd.h>

#include "tests/store/faults/trial.h"

namespace echelon {
namespace {

constexpr int not_run = 77;
constexpr int out_of_patience_seconds = 60;

const std::map<std::string, FaultRow (*)()>& rows() {
  static const std::map<std::string, FaultRow (*)()> all = {
      {"failing_calls", failing_calls},
      {"kills_at_calls", kills_at_calls},
      {"frozen_at_calls", frozen_at_calls},
      {"random_kills", random_kills},
      {"random_flips", random_flips},
      {"flips_of_every_byte", flips_of_every_byte},
      {"races", races},
      {"cuts_at_calls", cuts_at_calls},
      {"random_cuts", random_cuts},
  };
  return all;
}

std::string how_it_ended(int code) {
  return code < 0 ? fmt::format("signal {}", -code) : fmt::format("exit code {}", code);
}

/// What a trial that failed says stands on stderr already.
bool is_passed(const FaultRow& row, int64_t trial) {
  Child child([&] {
    ::alarm(out_of_patience_seconds);
    row.run(trial);
  });
  int code = child.wait();
  if (code != 0) std::cout << fmt::format("FAILED trial {}: {}\n", trial, how_it_ended(code)) << std::flush;
  return code == 0;
}

/// usage: store_faults ROW FIRST COUNT: prints failures, then "trials N failures M", fewer than COUNT at the end of a
/// row.
int run(const std::vector<std::string>& arguments) {
  FaultRow row = rows().at(arguments.at(0))();
  if (std::string obstacle = row.obstacle ? row.obstacle() : ""; !obstacle.empty()) {
    std::cout << "not run: " << obstacle << "\n";
    return not_run;
  }
  int64_t first = std::stoll(arguments.at(1)), end = first + std::stoll(arguments.at(2)), failures = 0;
  if (row.last) end = std::min(end, row.last());
  for (int64_t trial = first; trial < end; ++trial) failures += !is_passed(row, trial);
  std::cout << fmt::format("trials {} failures {}\n", std::max<int64_t>(end - first, 0), failures);
  return failures > 0;
}

}  // namespace
}  // namespace echelon

int main(int count, char** values) {
  try {
    return echelon::run({values + 1, values + count});
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
