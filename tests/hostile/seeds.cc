#include "tests/hostile/seeds.h"

#include "cluster/base/files.h"

namespace echelon::hostile {

void write_seeds(const std::string& folder, const Reader& reader) {
  constexpr size_t longest = 16 << 10;  // a mutation of more finds nothing in the time it takes
  make_folders(folder);
  std::vector<std::string> seeds = reader.good;
  for (const Attack& attack : reader.attacks) seeds.push_back(attack.bytes);
  for (size_t i = 0; i < seeds.size(); ++i) {
    if (seeds[i].size() <= longest) write_file_atomically(join_path(folder, std::to_string(i)), seeds[i]);
  }
}

}  // namespace echelon::hostile
