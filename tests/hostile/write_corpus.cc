// Writes what fuzzers begin with: FOLDER/READER/NUMBER, of every attack and good file that is not too long.
#include <cstdio>
#include <iostream>

#include "cluster/base/files.h"
#include "tests/hostile/reader.h"

namespace echelon::hostile {
namespace {

constexpr size_t kLongest = 16 << 10;  // a mutation of more finds nothing in the time it takes

void write(const std::string& folder, const Reader& reader) {
  make_folders(folder);
  std::vector<std::string> seeds = reader.good;
  for (const Attack& attack : reader.attacks) seeds.push_back(attack.bytes);
  for (size_t i = 0; i < seeds.size(); ++i) {
    if (seeds[i].size() <= kLongest) write_file_atomically(join_path(folder, std::to_string(i)), seeds[i]);
  }
}

}  // namespace
}  // namespace echelon::hostile

int main(int count, char** values) {
  if (count != 2) return 2;
  for (const auto& reader : echelon::hostile::light_readers())
    echelon::hostile::write(echelon::join_path(values[1], reader.name), reader);
}
