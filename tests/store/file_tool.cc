// Writes and reads files for judge_safetensors.py, which compares them with what other libraries do.
#include <iostream>
#include <string>
#include <vector>

#include "cluster/base/safetensors.h"
#include "runtime/store/tfevents.h"

namespace echelon {
namespace {

/// Writes every tensor of a file again, in pieces and in another order.
void copy_file(const std::string& from, const std::string& to) {
  SafetensorsFile file = SafetensorsFile::open(from);
  SafetensorsWriter writer(to, file.entries(), file.metadata());
  for (auto entry = file.entries().rbegin(); entry != file.entries().rend(); ++entry) {
    uint64_t half = entry->size() / 2;
    writer.write(entry->name, file.data(*entry) + half, entry->size() - half, half);
    writer.write(entry->name, file.data(*entry), half);
  }
  writer.finish();
}

/// Says for each file on stdin whether it is accepted.
void check_files() {
  for (std::string path; std::getline(std::cin, path);) {
    try {
      SafetensorsFile::open(path);
      std::cout << "accepted\n";
    } catch (const Error& error) {
      std::cout << "refused " << error.what() << "\n";
    }
  }
}

void write_events(const std::string& folder, int64_t first_step, int64_t last_step) {
  TensorBoardWriter writer(folder, first_step);
  for (int64_t step = first_step; step <= last_step; ++step) {
    writer.scalar("train/loss", 1.0 / static_cast<double>(step), step);
    writer.scalar("train/lr", 0.5, step);
  }
  std::cout << writer.path() << "\n";
}

int run(const std::vector<std::string>& arguments) {
  const std::string& action = arguments.at(0);
  if (action == "copy") copy_file(arguments.at(1), arguments.at(2));
  if (action == "check") check_files();
  if (action == "events") write_events(arguments.at(1), std::stoll(arguments.at(2)), std::stoll(arguments.at(3)));
  return 0;
}

}  // namespace
}  // namespace echelon

int main(int count, char** values) {
  try {
    return echelon::run({values + 1, values + count});
  } catch (const echelon::Error& error) {
    std::cerr << error.what() << "\n";
    return error.exit_code();
  }
}
