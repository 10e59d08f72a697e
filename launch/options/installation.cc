#include "launch/options/installation.h"

#include <filesystem>

#include "cluster/base/files.h"

namespace echelon {

namespace fs = std::filesystem;

namespace {

// The prepare folder is a link into the sources in a build folder; .venv lies at their root.
std::string python_for(const std::string& prepare_folder) {
  std::error_code failed;
  fs::path real = fs::canonical(prepare_folder, failed);
  if (failed) return "python3";
  fs::path python = real.parent_path().parent_path() / ".venv" / "bin" / "python";
  return exists(python.string()) ? python.string() : "python3";
}

}  // namespace

Installation find_installation() {
  Installation found;
  found.bin = fs::read_symlink("/proc/self/exe").parent_path().string();
  found.rank_program = join_path(found.bin, "echelon-rank");
  found.share = join_path(fs::path(found.bin).parent_path().string(), "share/echelon");
  found.prepare_script = join_path(found.share, "prepare/prepare.py");
  found.python = python_for(join_path(found.share, "prepare"));
  found.recipes = {join_path(found.share, "recipes")};
  return found;
}

}  // namespace echelon
