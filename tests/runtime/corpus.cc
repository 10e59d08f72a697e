#include "tests/runtime/corpus.h"

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include <unistd.h>

#include "sharding/seed.h"

namespace echelon::testing {

namespace {

template <class Value>
void put(std::string& out, Value value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

/// One document, as FORMATS of indexed data sets have it: header, lengths, offsets, document boundaries.
std::string index_of(int64_t tokens) {
  std::string out("MMIDIDX\0\0", 9);
  put<uint64_t>(out, 1);
  put<uint8_t>(out, 8);  // uint16
  put<uint64_t>(out, 1);
  put<uint64_t>(out, 2);
  put<int32_t>(out, static_cast<int32_t>(tokens));
  put<int64_t>(out, 0);
  put<int64_t>(out, 0);
  put<int64_t>(out, 1);
  return out;
}

std::string& folder() {
  static std::string path;
  return path;
}

}  // namespace

void write_corpus(const std::string& prefix, int64_t tokens, int64_t vocabulary, int64_t seed) {
  Seed draws = Seed(seed).with("corpus");
  std::string ids;
  int64_t token = 5;
  for (int64_t i = 0; i < tokens; ++i) {
    bool follow = draws.uniform(2 * i) < 0.7;
    token = follow ? 5 + (token * 7 + 3) % (vocabulary - 5) : 5 + draws.integer(2 * i + 1, vocabulary - 5);
    put<uint16_t>(ids, static_cast<uint16_t>(token));
  }
  std::ofstream(prefix + ".bin", std::ios::binary) << ids;
  std::ofstream(prefix + ".idx", std::ios::binary) << index_of(tokens);
  std::ofstream(prefix + ".meta.json")
      << "{\"vocabulary_size\": " << vocabulary
      << ", \"pad_id\": 0, \"bos_id\": 2, \"eos_id\": 3, \"mask_id\": 4, \"special_ids\": [0, 1, 2, 3, 4]}";
}

std::string temporary_folder() {
  if (!folder().empty()) return folder();
  const char* job = std::getenv("OMPI_MCA_ess_base_jobid");
  folder() =
      std::filesystem::temp_directory_path() / (std::string("echelon-test-") + (job ? job : std::to_string(getpid())));
  std::filesystem::create_directories(folder());
  std::atexit([] {
    std::error_code ignored;
    std::filesystem::remove_all(folder(), ignored);
  });
  return folder();
}

}  // namespace echelon::testing
