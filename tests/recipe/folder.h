// A folder of recipes that lasts as long as a test.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "cluster/base/error.h"
#include "runtime/recipe/recipe_file.h"

namespace echelon {

class Folder {
 public:
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "echelon-test-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string write(const std::string& name, const std::string& text) const {
    std::string path = path_ + "/" + name;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path());
    std::ofstream(path) << text;
    return path;
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// The whole sentence of the Error that `act` throws; "" when it throws none.
template <class Act>
std::string error_of(Act act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

/// A recipe that passes every check on one rank; tests change one thing.
inline const char* kGood = R"(
name: "good"
model { architecture { family: "llama" layers: 2 width: 64 heads: 4 kv_heads: 2 positions: 128 } }
objective { [echelon/CausalLm] {} }
data { train { [echelon/TokenFile] { path: "t" sequence_length: 64 } } }
batch { global: 24 micro: 2 }
optimizer { [echelon/AdamW] { beta2: 0.95 } }
)";

}  // namespace echelon
